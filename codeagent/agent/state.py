"""What the agent knows of a run: a fold of the run's stream. Its size does not grow with the run's length."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import singledispatch
from uuid import UUID

from codeagent.agent import tools
from codeagent.messages import events
from codeagent.messages.conversation import FinishReason, ToolCall, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.values import BASE_CHECKPOINT, ApprovalDecision, ApprovalRequest, Artifact, RunStatus


@dataclass(frozen=True, slots=True)
class Pending:
    """The one effect a run waits for: which step asked, and for which tool call."""

    effect_id: UUID
    step: int
    name: events.StepName
    call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """`version` is the head of the run's stream. `submitted` is None until the run exists."""

    version: int = 0
    status: RunStatus = RunStatus.SUBMITTED
    submitted: events.RunSubmitted | None = None
    step: int = 0
    pending: Pending | None = None
    queue: tuple[ToolCall, ...] = ()
    """Tool calls of the last message that have not started. They run one after the other."""
    approval: ApprovalRequest | None = None
    """What the run asks a person, about the first call of the queue. Nothing is pending meanwhile."""
    always_allowed: frozenset[str] = frozenset()
    """Tools that a person has allowed for the rest of the run."""
    extended_deadline_at: datetime | None = None
    """The deadline since the run last went on after it had waited for a person."""
    base: str | None = None
    checkpoint: str = BASE_CHECKPOINT
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal = Decimal(0)
    model_calls: int = 0
    used: CommandUse = field(default_factory=CommandUse)
    """What the run's commands have used together."""
    last_text: str = ""
    finish_reason: FinishReason = FinishReason.STOP
    cancel: events.CancelRequested | None = None
    ending: events.Ending | None = None
    patch: Artifact | None = None
    status_reason: str = ""

    @property
    def exists(self) -> bool:
        return self.version > 0

    @property
    def run(self) -> events.RunSubmitted:
        if self.submitted is None:
            raise ValueError("the run has not been submitted")
        return self.submitted

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools that the run's agent may call."""
        definition = self.run.definition
        return tools.NAMES if definition is None else definition.tools

    @property
    def egress(self) -> tuple[str, ...] | None:
        """What the run's commands may reach, as `name:port`."""
        return None if self.run.definition is None else self.run.definition.egress

    @property
    def deadline_at(self) -> datetime:
        """It stands still while the run waits for a person."""
        return self.extended_deadline_at or self.run.deadline_at


def evolve(state: RunState, event: Event) -> RunState:
    """The state after one more event of the run's stream. Events it has no use for only move the version."""
    return replace(_apply(event, state), version=state.version + 1)


@singledispatch
def _apply(event: Event, state: RunState) -> RunState:
    return state


@_apply.register
def _(event: events.RunSubmitted, state: RunState) -> RunState:
    return replace(state, submitted=event)


@_apply.register
def _(event: events.RunStarted, state: RunState) -> RunState:
    return replace(state, status=RunStatus.WORKING)


@_apply.register
def _(event: events.StepStarted, state: RunState) -> RunState:
    pending = Pending(event.effect_id, event.step, event.name)
    return replace(state, step=event.step, pending=pending, ending=event.ending, queue=())


@_apply.register
def _(event: events.StepCompleted, state: RunState) -> RunState:
    return replace(
        state,
        pending=None,
        base=event.base if event.base is not None else state.base,
        checkpoint=event.checkpoint if event.checkpoint is not None else state.checkpoint,
    )


@_apply.register
def _(event: events.MessageCompleted, state: RunState) -> RunState:
    return replace(
        state,
        pending=None,
        queue=event.tool_calls,
        usage=state.usage + event.usage,
        cost_usd=state.cost_usd + (event.cost_usd or Decimal(0)),
        model_calls=state.model_calls + 1,
        last_text=event.text[:2_000],
        finish_reason=event.finish_reason,
    )


@_apply.register
def _(event: events.ToolCallStarted, state: RunState) -> RunState:
    call = _queued(state, event.tool_call_id)
    return replace(state, pending=Pending(event.effect_id, event.step, "think", call))


@_apply.register
def _(event: events.ToolCallCompleted, state: RunState) -> RunState:
    return replace(
        state,
        pending=None,
        queue=_without(state, event.tool_call_id),
        checkpoint=event.checkpoint,
        used=state.used if event.used is None else state.used + event.used,
    )


@_apply.register
def _(event: events.ToolCallFailed, state: RunState) -> RunState:
    return replace(state, pending=None, queue=_without(state, event.tool_call_id))


@_apply.register
def _(event: events.RunVerified, state: RunState) -> RunState:
    return replace(state, used=state.used if event.used is None else state.used + event.used)


@_apply.register
def _(event: events.ArtifactCreated, state: RunState) -> RunState:
    return replace(state, patch=event.artifact)


@_apply.register
def _(event: events.InputRequired, state: RunState) -> RunState:
    return replace(state, status=RunStatus.INPUT_REQUIRED, approval=event.request)


@_apply.register
def _(event: events.InputReceived, state: RunState) -> RunState:
    if event.decision is not ApprovalDecision.ALLOW_ALWAYS or state.approval is None:
        return state
    return replace(state, always_allowed=state.always_allowed | {state.approval.tool})


@_apply.register
def _(event: events.RunResumed, state: RunState) -> RunState:
    return replace(state, status=RunStatus.WORKING, approval=None, extended_deadline_at=event.deadline_at)


@_apply.register
def _(event: events.CancelRequested, state: RunState) -> RunState:
    return replace(state, cancel=event)


@_apply.register
def _(event: events.RunEnded, state: RunState) -> RunState:
    status = RunStatus(event.NAME.removeprefix("run."))
    return replace(state, status=status, status_reason=event.status_reason, pending=None, approval=None, queue=())


def _queued(state: RunState, tool_call_id: str) -> ToolCall | None:
    return next((call for call in state.queue if call.id == tool_call_id), None)


def _without(state: RunState, tool_call_id: str) -> tuple[ToolCall, ...]:
    return tuple(call for call in state.queue if call.id != tool_call_id)
