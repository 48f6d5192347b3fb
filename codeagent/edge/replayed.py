"""What a request to go on with a recorded run comes to: its command as another version of an agent would have had it,
with its conversation and its files as of a version of its stream."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from pydantic import Field

from codeagent.agent.continuing import Conversation
from codeagent.agent_registry.agent import Content
from codeagent.agent_registry.canary import Unit
from codeagent.agent_registry.substitution import Substitute, substituted
from codeagent.edge.context import EdgeContext
from codeagent.edge.delegates import Delegation, definition_given
from codeagent.edge.model_choice import check_model
from codeagent.edge.models import NO_BOOLEAN, Strict
from codeagent.edge.resolve import (
    Named,
    Resolved,
    check_agent,
    check_fetched,
    check_image,
)
from codeagent.errors import Conflict, InvalidInput, Rejected
from codeagent.eventlog.accept import Placement
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.principal import Principal
from codeagent.messages.commands import SubmitRun
from codeagent.messages.events import RunSubmitted
from codeagent.messages.ids import run_stream
from codeagent.messages.values import MOST_REPLAYED, GitSource, Replays
from codeagent.sandboxes.protocol import DEFAULT_IMAGE
from codeagent.subjects.key import Erased

NAMED_VERSION = r"^[a-z0-9-]{1,63}@[1-9][0-9]{0,8}$"


class ReplayBody(Strict):
    """Where to go on with a run that has ended, and as which version of an agent. All else is the run's own."""

    agent: str = Field(pattern=NAMED_VERSION, description="`name@number`.", examples=["reviewer@3"])
    until_version: Annotated[int, Field(ge=1, lt=2**63), NO_BOOLEAN] = Field(
        description="Version of the run's stream up to which its conversation is taken over. 1 is its beginning."
    )


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """A body, and the run that it is about."""

    run_id: str
    body: ReplayBody

    def fingerprint(self) -> str:
        return sha256(f"{self.run_id} {self.body.model_dump_json()}".encode()).hexdigest()


async def resolve_replay(context: EdgeContext, caller: Principal, order: ReplayOrder, named: Named) -> Resolved:
    """A repeat has the command that it had first.

    Raises `NotFound`, `Conflict` (`run_not_ended`, `too_many_replays`), `Erased`, `Rejected` (410 `artifact_gone`), and
    `InvalidInput` for a version that is none to go on from (`conversation_not_whole`), or what the run cannot have.
    """
    command = await context.submissions.earlier(caller.tenant_id, named.run_id)
    if command is None:
        recorded = await _recorded(context, caller, order)
        await check_told(context.log, caller.tenant_id, Replays(run_id=order.run_id, until_version=1))
        await _check_files(context, caller, recorded)
        command = await _command(context, caller, order, recorded, named)
    placement = None if command.project_id is None else Placement(command.project_id)
    return Resolved(command, named.run_id, placement)


async def _recorded(context: EdgeContext, caller: Principal, order: ReplayOrder) -> Conversation:
    """The run's, as far as it is taken over."""
    view = await context.views.get(caller.tenant_id, order.run_id)
    if not view.status.terminal:
        raise Conflict("The run has not ended.", code="run_not_ended")
    until, conversation = order.body.until_version, Conversation()
    if until <= view.version:
        async for stored in context.log.stream(caller.tenant_id, run_stream(order.run_id)):
            if stored.version > until:
                break
            conversation.add(stored.decode())
    if until > view.version or not conversation.is_whole:
        detail = f"The run's conversation is not whole at version {until}: nothing can go on from there."
        raise InvalidInput(detail, code="conversation_not_whole", pointer="/until_version")
    return conversation


async def check_told(log: TenantLog, tenant_id: str, replays: Replays | None) -> None:
    """Whether a model can be told what was said in a run, and in those that this one had replayed: a view that is kept
    may not know yet that it is gone. Raises `Erased`."""
    while replays is not None:
        run_id, replays = replays.run_id, None
        for stored in await log.read_stream(tenant_id, run_stream(run_id), 0, 2):
            event = stored.decode()
            if isinstance(event, RunSubmitted):
                if stored.erased:
                    raise Erased(f"What was said in {run_id} was erased: nothing can go on from there.")
                replays = event.replays


async def _check_files(context: EdgeContext, caller: Principal, recorded: Conversation) -> None:
    """What the new run reads must still be there; a repository is fetched again where the run had not come to it."""
    files, source = recorded.files, recorded.state.run.source
    if files is not None:
        needed = [files.base, files.checkpoint, *recorded.arguments]
    elif isinstance(source, GitSource):
        check_fetched(context, caller, source)
        needed = []
    else:
        needed = [source.digest]
    for digest in dict.fromkeys(needed):
        if digest and not await context.known.exists(caller.tenant_id, digest):
            raise Rejected(f"The artifact {digest} is not kept any more.", code="artifact_gone", status=410)


async def _command(
    context: EdgeContext, caller: Principal, order: ReplayOrder, recorded: Conversation, named: Named
) -> SubmitRun:
    submitted = recorded.state.run
    unit = Unit("principal", caller.id)
    agent = await check_agent(context, caller, order.body.agent, unit)
    definition = definition_given(context, agent)
    found = await context.agents.definitions.find(caller.tenant_id, agent.name)
    version = await context.agents.versions.find(caller.tenant_id, found, agent.number)
    command = substituted(
        SubmitRun(**{name: getattr(submitted, name) for name in SubmitRun.model_fields}),
        await _own(context, caller, submitted),
        Substitute(agent.name, version, context.policy.default_model, definition),
    )
    check_model(context, command.model, "/agent")
    check_image(context, command.image or DEFAULT_IMAGE, pointer="")
    known = tuple(name for name in command.fallbacks or () if context.supports_model(name))
    delegation = Delegation(context, caller, unit)
    return command.model_copy(
        update={
            "run_id": named.run_id,
            "definition": await delegation.extended(command.definition, agent, command.approvals),
            "parent": None,
            "fingerprint": named.fingerprint,
            "fallbacks": known or None,
            "limits": context.policy.limits.of_run(command.limits),
            "session_id": None,
            "continues": recorded.files,
            "replays": _replays(order, submitted),
        }
    )


async def _own(context: EdgeContext, caller: Principal, submitted: RunSubmitted) -> Content:
    """What the version says that the recorded run had."""
    named = submitted.agent if submitted.definition is None else submitted.definition.id
    agent = await context.agents.definitions.find(caller.tenant_id, named)
    return (await context.agents.versions.find(caller.tenant_id, agent, submitted.agent_version)).content


def _replays(order: ReplayOrder, submitted: RunSubmitted) -> Replays:
    runs = 1 if submitted.replays is None else submitted.replays.runs + 1
    if runs > MOST_REPLAYED:
        detail = f"The conversation was had in {MOST_REPLAYED} runs already, one replayed by the next."
        raise Conflict(detail, code="too_many_replays")
    return Replays(run_id=order.run_id, until_version=order.body.until_version, runs=runs)
