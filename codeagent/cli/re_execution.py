"""A finished run and another version of its agent, fetched from the edge and replayed here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from codeagent.agent import delegates, tools
from codeagent.agent.actions import Difference, differences
from codeagent.agent.recording import RecordedStep, steps_of
from codeagent.agent.replay import Replay, Spent, replay
from codeagent.agent_registry.agent import AgentVersion, Content, VersionState
from codeagent.agent_registry.substitution import Substitute, substituted
from codeagent.cli.client import Client
from codeagent.errors import InvalidInput, Rejected
from codeagent.messages.calls import MessageFailed
from codeagent.messages.catalog import decode_structured
from codeagent.messages.commands import SubmitRun
from codeagent.messages.envelope import Message
from codeagent.messages.events import MessageCompleted, RunEnded
from codeagent.messages.mcp import McpTools
from codeagent.messages.values import ApprovalPolicy, CachePolicy, LimitsAsked
from codeagent.providers.pricing import TokenPrices

_REFERENCE = re.compile(r"([a-z0-9-]{1,63})@([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars of the replies that were given to the other version: as recorded, and at its model's prices. None
    where a price is not known."""

    recorded_usd: Decimal | None
    other_usd: Decimal | None

    @property
    def difference_usd(self) -> Decimal | None:
        if self.recorded_usd is None or self.other_usd is None:
            return None
        return self.other_usd - self.recorded_usd


@dataclass(frozen=True, slots=True)
class ReExecution:
    """`recorded` is the run's command, `other` what another version would have made of it; `changes` are the terms
    that differ between them, whether or not anything was decided otherwise for it."""

    recorded: SubmitRun
    stream: list[Message]
    steps: tuple[RecordedStep, ...]
    other: SubmitRun
    changes: tuple[Difference, ...]
    replay: Replay
    cost: Cost

    @property
    def status(self) -> str:
        last = self.steps[-1].events[-1]
        return last.NAME.removeprefix("run.") if isinstance(last, RunEnded) else "failed"

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        done = self.replay
        divergences = [asdict(divergence) for divergence in done.divergences]
        return {
            "run_id": self.recorded.run_id,
            "status": self.status,
            "agent": reference_of(self.recorded),
            "other_agent": reference_of(self.other),
            "changes": [asdict(change) for change in self.changes],
            "decisions": {"compared": done.decisions, "recorded": done.recorded_decisions},
            "first_divergence": divergences[0] if divergences else None,
            "divergences": divergences,
            "request_differs": None if done.request is None else asdict(done.request),
            "cost": {
                "replies": done.spent.replies,
                "usage": done.spent.usage.model_dump(),
                "recorded_usd": usd(self.cost.recorded_usd),
                "other_usd": usd(self.cost.other_usd),
                "difference_usd": usd(self.cost.difference_usd),
            },
            "not_reproduced_at": done.not_reproduced_at,
        }


def spent_after(recorded: Iterable[Message], version: int = 0) -> Spent:
    """On a run's model calls that ended after a version of its stream."""
    spent = Spent()
    for message in recorded:
        call = message.data
        if isinstance(call, MessageCompleted | MessageFailed) and (message.envelope.sequence or 0) > version:
            spent = spent.with_call(call)
    return spent


def recorded_of(edge: Client, run_id: str) -> list[Message]:
    """A run's events so far."""
    return [decode_structured(item) for item in edge.recorded(run_id)]


def reference_of(command: SubmitRun) -> str:
    return f"{command.agent}@{command.agent_version}"


def re_execute(edge: Client, run_id: str, reference: str) -> ReExecution:
    """Raises `ApiError`, `Rejected` (`run_not_ended`, `run_not_begun`), `InvalidInput` (`malformed_agent`), and
    `Unreadable` for a recording that this program cannot replay."""
    named = _REFERENCE.fullmatch(reference)
    if named is None:
        raise InvalidInput(f"{reference!r} names no version of an agent: give NAME@VERSION.", code="malformed_agent")
    stream = recorded_of(edge, run_id)
    steps = steps_of(stream)
    recorded = next((step.message.data for step in steps if isinstance(step.message.data, SubmitRun)), None)
    if recorded is None:
        raise Rejected("The run ended before it began.", code="run_not_begun", status=409)
    agent = recorded.agent if recorded.definition is None else recorded.definition.id
    own, other = _version(edge, agent, str(recorded.agent_version)), _version(edge, named[1], named[2])
    models = edge.get("/v1/models")["items"]
    default = next((model["id"] for model in models if model["is_default"]), recorded.model)
    command = substituted(recorded, own.content, Substitute(named[1], other, default))
    done = replay(steps, command)
    changes = differences(_terms(recorded), _terms(command))
    cost = Cost(done.spent.cost_usd, _cost(done, recorded, command, models))
    return ReExecution(recorded, stream, steps, command, changes, done, cost)


def _version(edge: Client, agent: str, number: str) -> AgentVersion:
    said = edge.get(f"/v1/agents/{agent}/versions/{number}")
    content = Content(
        instructions=said["instructions"],
        model=said["model"],
        tools=tuple(said["tools"]),
        limits=LimitsAsked.model_validate(said["limits"]),
        approvals=None if said["approvals"] is None else ApprovalPolicy.model_validate(said["approvals"]),
        egress=tuple(said["egress"]),
        fallbacks=tuple(said["fallbacks"]),
        mcp=tuple(McpTools.model_validate(offer) for offer in said["mcp"]),
        cache=None if said["cache"] is None else CachePolicy.model_validate(said["cache"]),
        delegates=tuple(said["delegates"]),
    )
    return AgentVersion(
        said["agent_id"],
        said["number"],
        VersionState(said["state"]),
        content,
        said["digest"],
        said["created_by"],
        None if said["created_at"] is None else datetime.fromisoformat(said["created_at"]),
    )


def _terms(command: SubmitRun) -> dict[str, Any]:
    """What a run works by, as it is compared."""
    definition = command.definition
    return {
        "instructions": "" if definition is None else definition.instructions,
        "model": command.model,
        "fallbacks": list(command.fallbacks or ()),
        "tools": list(tools.NAMES if definition is None else definition.tools),
        "limits": command.limits.model_dump(mode="json"),
        "approvals": None if command.approvals is None else command.approvals.model_dump(mode="json"),
        "egress": [] if definition is None else list(definition.egress or ()),
        "mcp": {offer.server: offer.digest for offer in (definition and definition.mcp) or ()},
        "cache": None if definition is None or definition.cache is None else definition.cache.model_dump(),
        "delegates": [f"{delegate.name}@{delegate.version}" for delegate in delegates.of(definition)],
    }


def _cost(done: Replay, recorded: SubmitRun, other: SubmitRun, models: list[dict[str, Any]]) -> Decimal | None:
    if other.model == recorded.model:
        return done.spent.cost_usd
    prices = next((model["prices"] for model in models if model["id"] == other.model), None)
    return None if prices is None else TokenPrices.model_validate(prices).cost(done.spent.usage)


def usd(value: Decimal | None) -> str | None:
    return None if value is None else f"{value.normalize():f}"
