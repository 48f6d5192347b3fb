"""What the agent knows of a run: a fold of the run's stream. Its size does not grow with the run's length."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import singledispatch
from uuid import UUID

from codeagent.agent import delegates, mcp, tools
from codeagent.agent.progress import Progress
from codeagent.messages import events
from codeagent.messages.calls import MessageFailed
from codeagent.messages.conversation import FinishReason, ToolCall, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.loop_events import RunNudged
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.subagents import SubagentCompleted, SubagentEnded, SubagentFailed, SubagentStarted
from codeagent.messages.values import BASE_CHECKPOINT, ApprovalDecision, ApprovalRequest, Artifact, RunStatus

LONGEST_WORDS = 16_000
"""Characters of a message that a run's end, or its parent, may be told."""


@dataclass(frozen=True, slots=True)
class Pending:
    """An effect that a run waits for: which step asked, and for which tool call."""

    effect_id: UUID
    step: int
    name: events.StepName
    call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class Delegated:
    """What a run has handed to others: to so many children, which have used so much of what it may use itself.
    `child` is the one that it waits for."""

    children: int = 0
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal = Decimal(0)
    child: SubagentStarted | None = None

    def without(self, ended: SubagentEnded) -> Delegated:
        """With the child counted in that has ended."""
        spent = self.cost_usd + ended.cost_usd
        return replace(self, steps=self.steps + ended.steps, usage=self.usage + ended.usage, cost_usd=spent, child=None)


@dataclass(frozen=True, slots=True)
class RunState:
    """`version` is the head of the run's stream. `submitted` is None until the run exists."""

    version: int = 0
    status: RunStatus = RunStatus.SUBMITTED
    submitted: events.RunSubmitted | None = None
    step: int = 0
    open: tuple[Pending, ...] = ()
    """What the run waits for: one effect, or several tool calls that only read."""
    queue: tuple[ToolCall, ...] = ()
    """Tool calls of the last message that have not started."""
    approval: ApprovalRequest | None = None
    """What the run asks a person, about the first call of the queue. Nothing is pending meanwhile."""
    always_allowed: frozenset[str] = frozenset()
    """Tools that a person has allowed for the rest of the run."""
    extended_deadline_at: datetime | None = None
    """The deadline since the run last went on after it had waited for a person."""
    base: str | None = None
    checkpoint: str = BASE_CHECKPOINT
    dependencies: str | None = None
    """The archive of what was installed."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal = Decimal(0)
    model_calls: int = 0
    used: CommandUse = field(default_factory=CommandUse)
    """What the run's commands have used together."""
    delegated: Delegated = field(default_factory=Delegated)
    progress: Progress = field(default_factory=Progress)
    last_text: str = ""
    """The beginning of the newest message, of which the whole may be the artifact `last_text_ref`."""
    last_text_ref: str | None = None
    finish_reason: FinishReason = FinishReason.STOP
    cancel: events.CancelRequested | None = None
    ending: events.Ending | None = None
    patch: Artifact | None = None
    status_reason: str = ""

    @property
    def exists(self) -> bool:
        return self.version > 0

    @property
    def pending(self) -> Pending | None:
        """What the run waits for, the longest of several."""
        return self.open[0] if self.open else None

    @property
    def run(self) -> events.RunSubmitted:
        if self.submitted is None:
            raise ValueError("the run has not been submitted")
        return self.submitted

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools that the run's agent may call."""
        definition = self.run.definition
        if definition is None:
            return tools.NAMES
        return (*definition.tools, *mcp.names(definition), *delegates.names(definition))

    @property
    def steps(self) -> int:
        """Model calls that count against the run's limit, as what follows does: those of its children as well."""
        return self.model_calls + self.delegated.steps

    @property
    def tokens(self) -> int:
        usage = self.usage + self.delegated.usage
        return usage.input_tokens + usage.output_tokens

    @property
    def spent_usd(self) -> Decimal:
        return self.cost_usd + self.delegated.cost_usd

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
    return replace(state, step=event.step, open=(pending,), ending=event.ending, queue=())


@_apply.register
def _(event: events.StepCompleted, state: RunState) -> RunState:
    return replace(
        state,
        open=(),
        base=event.base if event.base is not None else state.base,
        checkpoint=event.checkpoint if event.checkpoint is not None else state.checkpoint,
        dependencies=event.dependencies if event.dependencies is not None else state.dependencies,
    )


@_apply.register
def _(event: events.MessageCompleted, state: RunState) -> RunState:
    return replace(
        state,
        open=(),
        queue=event.tool_calls,
        usage=state.usage + event.usage,
        cost_usd=state.cost_usd + (event.cost_usd or Decimal(0)),
        model_calls=state.model_calls + 1,
        progress=state.progress.begun(event),
        last_text=event.text[:LONGEST_WORDS],
        last_text_ref=event.text_ref,
        finish_reason=event.finish_reason,
    )


@_apply.register
def _(event: MessageFailed, state: RunState) -> RunState:
    cost = state.cost_usd + (event.cost_usd or Decimal(0))
    return replace(state, open=(), usage=state.usage + event.usage, cost_usd=cost)


@_apply.register
def _(event: events.ToolCallStarted, state: RunState) -> RunState:
    call = _call(state, event.tool_call_id)
    pending = Pending(event.effect_id, event.step, "think", call)
    return replace(state, open=(*state.open, pending), queue=_without(state, event.tool_call_id))


@_apply.register
def _(event: events.ToolCallCompleted, state: RunState) -> RunState:
    return replace(
        state,
        open=_others(state, event.tool_call_id),
        checkpoint=event.checkpoint,
        used=state.used if event.used is None else state.used + event.used,
        progress=state.progress.completed(event, _call(state, event.tool_call_id)),
    )


@_apply.register
def _(event: events.ToolCallFailed, state: RunState) -> RunState:
    return replace(
        state,
        open=_others(state, event.tool_call_id),
        queue=_without(state, event.tool_call_id),
        progress=state.progress.failed(event, _call(state, event.tool_call_id)),
    )


@_apply.register
def _(event: SubagentStarted, state: RunState) -> RunState:
    return replace(state, delegated=replace(state.delegated, children=state.delegated.children + 1, child=event))


@_apply.register(SubagentCompleted)
@_apply.register(SubagentFailed)
def _(event: SubagentEnded, state: RunState) -> RunState:
    return replace(state, delegated=state.delegated.without(event), used=state.used + event.used)


@_apply.register
def _(_: RunNudged, state: RunState) -> RunState:
    return replace(state, progress=state.progress.nudged())


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
    return replace(state, status=status, status_reason=event.status_reason, open=(), approval=None, queue=())


def _call(state: RunState, tool_call_id: str) -> ToolCall | None:
    """A call that is open or queued."""
    known = (*(pending.call for pending in state.open if pending.call is not None), *state.queue)
    return next((call for call in known if call.id == tool_call_id), None)


def _others(state: RunState, tool_call_id: str) -> tuple[Pending, ...]:
    return tuple(pending for pending in state.open if pending.call is not None and pending.call.id != tool_call_id)


def _without(state: RunState, tool_call_id: str) -> tuple[ToolCall, ...]:
    return tuple(call for call in state.queue if call.id != tool_call_id)
