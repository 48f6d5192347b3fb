"""Taking a command in: validated, recognised when repeated, and safe before it is answered 202."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from codeagent import clock
from codeagent.agent_registry.agent import run_limits
from codeagent.broker.topics import RUN_COMMANDS
from codeagent.edge.context import EdgeContext
from codeagent.edge.models import GitSourceBody, RunBody
from codeagent.errors import InvalidInput, NotFound, Rejected, Unavailable
from codeagent.eventlog.accept import Submission
from codeagent.eventlog.effects import OutboxRow
from codeagent.flags.features import GIT_SOURCES, RUNS_SUBMISSION
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Scope
from codeagent.messages.catalog import encode_data
from codeagent.messages.commands import CancelRun, SubmitRun
from codeagent.messages.envelope import Command, Envelope, to_headers
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.messages.values import ArchiveSource, GitSource, Source
from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.sources import TrustedHost, check_ref, parse_source
from codeagent.telemetry import metrics
from codeagent.telemetry.traces import current_traceparent

SWITCHED_OFF_SECONDS = 30
"""When a client may ask again that met a feature which an operator has switched off."""


def idempotency_key(header: str | None) -> str:
    """The header's value, quoted as RFC 9651 has it or bare. Raises `Rejected`."""
    if header is None or not header.strip():
        raise Rejected("Idempotency-Key is required: a repeat is then done once.", code="idempotency_key_missing")
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise Rejected("Idempotency-Key must be 1 to 255 visible ASCII characters.", code="idempotency_key_malformed")
    return key


@dataclass(frozen=True, slots=True)
class AcceptedRun:
    """`command` is None where an earlier request under the same key had ordered the run, and nothing was sent."""

    run_id: str
    at: datetime
    command: SubmitRun | None


async def accept_run(context: EdgeContext, caller: Principal, body: RunBody, key: str) -> AcceptedRun:
    """Orders the run that `key` names. Raises what the client is to be told."""
    started = time.perf_counter()
    if not context.features.enabled(RUNS_SUBMISSION, caller.tenant_id, caller.id):
        raise Unavailable(
            "New runs are not taken for the moment.",
            code="temporary_reduced_capacity",
            retry_after=SWITCHED_OFF_SECONDS,
        )
    run_id = typed_id("run", derived_uuid(caller.tenant_id, caller.id, "POST /v1/runs", key))
    try:
        command = await _submit_command(context, caller, body, run_id)
    except Rejected:
        if await _accepted_before(context, caller, run_id, _fingerprint(body)):
            metrics.IDEMPOTENCY_REPLAYS.inc()
            return AcceptedRun(run_id, clock.now(), None)
        raise
    envelope = _envelope(context, caller, command, run_id, "submit")
    row = OutboxRow(envelope.id, RUN_COMMANDS, envelope, command)
    durable, request = context.policy.durable_accept, encode_data(command)
    accepted = await context.submissions.accept(
        Submission(run_id, caller.tenant_id, command.fingerprint, request, row if durable else None)
    )
    if accepted.fingerprint != command.fingerprint:
        raise InvalidInput("This Idempotency-Key was used for another request.", code="idempotency_key_reused")
    if accepted.accepted and not accepted.inserted:
        metrics.IDEMPOTENCY_REPLAYS.inc()
        return AcceptedRun(run_id, envelope.time, None)
    if durable:
        if not accepted.inserted:
            # Noted without an outbox row, before `durable_accept` was turned on, and never sent.
            await context.submissions.enqueue(row)
            context.submissions.confirm(run_id)
        context.hand_over(row)
    else:
        await context.publisher.send(RUN_COMMANDS, run_id, to_headers(envelope), request)
        context.submissions.confirm(run_id)
    metrics.COMMAND_ACCEPT.labels("run.submit").observe(time.perf_counter() - started)
    return AcceptedRun(run_id, envelope.time, command)


async def _accepted_before(context: EdgeContext, caller: Principal, run_id: str, fingerprint: str) -> bool:
    """Whether what is refused now was accepted once: an agent may have been archived since, a model removed."""
    noted = await context.submissions.find(caller.tenant_id, run_id)
    if noted is not None:
        return noted.accepted and noted.fingerprint == fingerprint
    try:
        return (await context.views.get(caller.tenant_id, run_id)).fingerprint == fingerprint
    except NotFound:
        return False


async def accept_cancel(context: EdgeContext, caller: Principal, run_id: str, reason: str) -> None:
    """Orders a run to stop. Repeats are one order."""
    command = CancelRun(run_id=run_id, reason=reason)
    envelope = _envelope(context, caller, command, run_id, "cancel")
    row = OutboxRow(envelope.id, RUN_COMMANDS, envelope, command)
    if context.policy.durable_accept:
        await context.submissions.enqueue(row)
        context.hand_over(row)
    else:
        await context.publisher.send(RUN_COMMANDS, run_id, to_headers(envelope), encode_data(command))


async def _submit_command(context: EdgeContext, caller: Principal, body: RunBody, run_id: str) -> SubmitRun:
    resolver, drafts = context.agents.resolver, caller.may(Scope.AGENTS_WRITE)
    agent = await resolver.resolve(caller.tenant_id, body.agent, drafts=drafts)
    model = body.model or agent.model or context.policy.default_model
    if not context.supports_model(model):
        raise InvalidInput(f"There is no model {model!r}.", code="unsupported_model", pointer="/model")
    return SubmitRun(
        run_id=run_id,
        task=body.task,
        source=await _source(context, caller, body),
        agent=agent.name,
        agent_version=agent.number,
        definition=agent.definition,
        model=model,
        limits=run_limits(body.limits, agent.limits),
        fingerprint=_fingerprint(body),
    )


def _fingerprint(body: RunBody) -> str:
    return sha256(body.__pydantic_serializer__.to_json(body)).hexdigest()


async def _source(context: EdgeContext, caller: Principal, body: RunBody) -> Source:
    if isinstance(body.source, GitSourceBody):
        if not context.features.enabled(GIT_SOURCES, caller.tenant_id, caller.id):
            raise InvalidInput("Git sources are switched off.", code="unsupported_source", pointer="/source/kind")
        check_git_url(body.source.url, context.policy.trusted_hosts)
        _check_ref(body.source.ref)
        return GitSource(url=body.source.url, ref=body.source.ref)
    if not await context.known.exists(caller.tenant_id, body.source.digest):
        raise InvalidInput(
            "There is no such artifact: upload the archive first.", code="unknown_artifact", pointer="/source/digest"
        )
    return ArchiveSource(digest=body.source.digest)


def check_git_url(url: str, trusted_hosts: Sequence[TrustedHost] = ()) -> None:
    """Refuses what the fetch would refuse, and names that cannot be public unless the operator trusts them. Where any
    other name leads is checked when it is fetched."""
    try:
        source = parse_source(url, trusted_hosts)
    except SandboxFailure as refused:
        raise InvalidInput(_sentence(refused), code="unsupported_git_url", pointer="/source/url") from None
    if source.trusted is None and not _may_be_public(source.host):
        raise InvalidInput("The host must be a public name.", code="unsupported_git_url", pointer="/source/url")


def _may_be_public(host: str) -> bool:
    # Top-level domains begin with a letter; what does not is an address in one of its many spellings.
    last = host.rpartition(".")[2]
    return "." in host and last[:1].isalpha() and not host.endswith((".local", ".internal", ".localhost"))


def _check_ref(ref: str) -> None:
    try:
        check_ref(ref)
    except SandboxFailure as refused:
        raise InvalidInput(_sentence(refused), code="unsupported_git_ref", pointer="/source/ref") from None


def _sentence(refused: SandboxFailure) -> str:
    return f"{refused.detail[:1].upper()}{refused.detail[1:]}."


def _envelope(context: EdgeContext, caller: Principal, command: Command, run_id: str, word: str) -> Envelope:
    """The envelope of the one command of a run that `word` names: repeats have the same id."""
    now = clock.now()
    command_id = derived_uuid(run_id, word)
    return Envelope(
        id=command_id,
        name=command.NAME,
        version=command.VERSION,
        source=f"/tenants/{caller.tenant_id}/edge",
        time=now,
        tenant_id=caller.tenant_id,
        key=run_id,
        correlation_id=command_id if word == "submit" else derived_uuid(run_id, "submit"),
        actor_type=caller.type,
        actor_id=caller.id,
        traceparent=current_traceparent(),
        expires_at=now + timedelta(seconds=context.policy.submit_expiry_seconds)
        if isinstance(command, SubmitRun)
        else None,
    )
