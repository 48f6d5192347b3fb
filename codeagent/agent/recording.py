"""A finished run as the messages that it was decided on.

The stream keeps what was decided, not what it was decided on. But each step begins with the fact of the message that
led to it, so that the message can be told from the step, as far as a decision looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from itertools import groupby
from typing import Any, TypeVar
from uuid import UUID

from codeagent.agent import delegation, endings, mcp_calls, verification
from codeagent.agent.earlier import as_now
from codeagent.agent.state import RunState, evolve
from codeagent.errors import Rejected, Unreadable
from codeagent.messages import commands, events, results
from codeagent.messages.calls import MessageFailed
from codeagent.messages.conversation import AssistantMessage
from codeagent.messages.envelope import Event, Message, Payload
from codeagent.messages.ids import derived_uuid
from codeagent.messages.loop_events import RunCompacted, RunGuidanceFound
from codeagent.messages.mcp import PREFIX
from codeagent.messages.subagents import SubagentCompleted, SubagentFailed
from codeagent.messages.values import Outcome, RunStatus
from codeagent.messages.verification import PatchVerdict

Fact = TypeVar("Fact", bound=Event)

GIVEN_UP = "internal_error"
"""Why a run ended about whose last message nothing could be decided."""


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A message and what it led to. `version` is that of the stream before; the message's time is when it counted."""

    version: int
    message: Message
    events: tuple[Event, ...]

    @property
    def at(self) -> datetime:
        return self.message.envelope.time


@dataclass(frozen=True, slots=True)
class _Told:
    """One step's events, and the run as it was before them."""

    run_id: str
    at: datetime
    facts: tuple[Event, ...]
    before: RunState

    @property
    def effect_id(self) -> UUID:
        if self.before.pending is None:
            raise _unreplayable(self.facts[0], "nothing was asked that it could answer")
        return self.before.pending.effect_id

    @property
    def asked(self) -> str:
        """What the answer is to: the name of a step, or `tool`."""
        pending = self.before.pending
        if pending is None:
            return ""
        return pending.name if pending.call is None else "tool"


def steps_of(recorded: Sequence[Message]) -> tuple[RecordedStep, ...]:
    """The steps of a whole stream, from its first event on. One that ended the run without deciding is left out.

    Raises `Rejected` (`run_not_ended`) for a run that still works, `Unreadable` (`incomplete_recording`,
    `unreplayable_event`) for a stream that is not whole, or tells of what this program does not know.
    """
    if [message.envelope.sequence for message in recorded] != list(range(1, len(recorded) + 1)):
        raise Unreadable("The recording does not have every event of the run.", code="incomplete_recording")
    if not recorded or not isinstance(recorded[-1].data, events.RunEnded):
        raise Rejected("The run has not ended: there is nothing to replay yet.", code="run_not_ended", status=409)
    steps: list[RecordedStep] = []
    state = RunState()
    for _, group in groupby(recorded, key=lambda message: message.envelope.causation_id):
        batch = tuple(group)
        told = _Told(batch[0].envelope.key, batch[0].envelope.time, tuple(_facts(batch)), state)
        if isinstance(told.facts[0], events.RunFailed) and told.facts[0].status_reason == GIVEN_UP:
            break
        version = (batch[0].envelope.sequence or 0) - 1
        steps.append(RecordedStep(version, _message(batch[0], told), told.facts))
        state = reduce(evolve, told.facts, state)
    return tuple(steps)


def _facts(batch: Sequence[Message]) -> list[Event]:
    facts = [message.data for message in batch if isinstance(message.data, Event)]
    return [as_now(fact, facts[0]) for fact in facts]


def _message(first: Message, told: _Told) -> Message:
    reader = _READERS.get(type(told.facts[0]))
    if reader is None:
        raise _unreplayable(told.facts[0], "this program does not know what leads to it")
    data = reader(told)
    ended = told.facts[-1]
    waited = isinstance(ended, events.RunFailed) and ended.status_reason == "queue_timeout"
    envelope = replace(
        first.envelope,
        id=first.envelope.causation_id or first.envelope.id,
        name=data.NAME,
        version=data.VERSION,
        causation_id=None,
        sequence=None,
        leaf_hash=None,
        expires_at=told.at - timedelta(microseconds=1) if waited else None,
    )
    return Message(envelope, data)


def _submitted(told: _Told) -> Payload:
    return commands.SubmitRun(**_said(told.facts[0], commands.SubmitRun))


def _canceled(told: _Told) -> Payload:
    requested = told.facts[0]
    assert isinstance(requested, events.CancelRequested)
    return commands.CancelRun(run_id=told.run_id, reason=requested.reason)


def _answered(told: _Told) -> Payload:
    return commands.AnswerApproval(run_id=told.run_id, **_said(told.facts[0], commands.AnswerApproval))


def _expired(told: _Told) -> Payload:
    return timer(told.run_id, "approval_expiry")


def timer(run_id: str, name: commands.Timer) -> commands.FireTimer:
    return commands.FireTimer(run_id=run_id, timer_id=derived_uuid(run_id, name), timer=name)


def _spoke(told: _Told) -> Payload:
    spoken, compacted = _first(told, events.MessageCompleted), _first(told, RunCompacted)
    if spoken is None:
        raise _unreplayable(told.facts[0], "no message was completed by it")
    return results.ProviderResult(
        **_said(spoken, results.ProviderResult),
        run_id=told.run_id,
        outcome=Outcome.DONE,
        message=AssistantMessage(text=spoken.text, tool_calls=spoken.tool_calls),
        compaction=None if compacted is None else compacted.compaction,
    )


def _charged(told: _Told) -> Payload:
    """A call that brought nothing and used something. The run collects then, or ends, where it was canceled."""
    failed, follows = told.facts[0], told.facts[-1]
    assert isinstance(failed, MessageFailed)
    ending = follows.ending if isinstance(follows, events.StepStarted) else None
    return results.ProviderResult(
        **_said(failed, results.ProviderResult),
        run_id=told.run_id,
        outcome=Outcome.CANCELED if ending is None else endings.outcome(ending.reason),
        error_reason=failed.reason,
        error="" if ending is None else ending.message,
    )


def _sandbox(told: _Told, outcome: Outcome = Outcome.DONE, **said: Any) -> Payload:
    values = {"effect_id": told.effect_id, "attempt": 1, **said}
    return results.SandboxResult(run_id=told.run_id, outcome=outcome, **values)


def _ran(told: _Told) -> Payload:
    completed = told.facts[0]
    assert isinstance(completed, events.ToolCallCompleted)
    if completed.name.startswith(PREFIX):
        return mcp_calls.recorded(told.run_id, completed)
    return _sandbox(told, **_said(completed, results.SandboxResult))


def _did_not_run(told: _Told) -> Payload:
    failed, collecting = told.facts[0], told.facts[-1]
    assert isinstance(failed, events.ToolCallFailed)
    if failed.effect_id is not None and failed.name.startswith(PREFIX):
        return mcp_calls.recorded(told.run_id, failed)
    ending = collecting.ending if isinstance(collecting, events.StepStarted) else None
    if ending is None or failed.effect_id is None:
        raise _unreplayable(failed, "the run did not end by it")
    return _sandbox(
        told,
        endings.outcome(ending.reason),
        **{**_said(failed, results.SandboxResult), "error_reason": failed.code, "error": ending.message},
    )


def _had(told: _Told) -> Payload:
    completed, found = _first(told, events.StepCompleted), _first(told, RunGuidanceFound)
    made = told.facts[0].artifact if isinstance(told.facts[0], events.ArtifactCreated) else None
    if completed is None:
        raise _unreplayable(told.facts[0], "no step was completed by it")
    return _sandbox(
        told,
        base=completed.base,
        checkpoint=completed.checkpoint or "",
        dependencies=completed.dependencies,
        guidance=None if found is None else found.guidance,
        patch=made,
        reason="ok",
    )


def _judged(told: _Told) -> Payload:
    judged, ended = told.facts[0], told.facts[-1]
    assert isinstance(judged, events.RunVerified)
    assert isinstance(ended, events.RunEnded)
    said = _said(judged, results.SandboxResult)
    if judged.verdict is not PatchVerdict.ERROR:
        return _sandbox(told, **said)
    if ended.status_reason == verification.NOT_VERIFIED and judged.reason != "patch_conflict":
        return _sandbox(told, **said)
    error = ended.message.removeprefix(verification.NOT_JUDGED)
    return _sandbox(told, endings.outcome(judged.reason), **said, error_reason=judged.reason, error=error)


def _delegated(told: _Told) -> Payload:
    child = told.before.delegated.child
    if child is None:
        raise _unreplayable(told.facts[0], "nobody was asked who could have answered it")
    return delegation.recorded(told.run_id, told.facts, child.agent)


def _failed(told: _Told) -> Payload:
    """A step that collects, and begins with that: what the run waited for has failed, or was stopped in time."""
    started = told.facts[0]
    assert isinstance(started, events.StepStarted)
    ending = started.ending
    if ending is None or told.asked not in {"think", "tool", "install"}:
        raise _unreplayable(started, "this program does not know what leads to it")
    outcome = endings.outcome(ending.reason)
    if told.asked != "think":
        return _sandbox(told, outcome, error_reason=endings.error_reason(ending.reason), error=ending.message)
    reason = "" if ending.reason == "provider_error" else ending.reason
    return results.ProviderResult(
        effect_id=told.effect_id,
        run_id=told.run_id,
        attempt=1,
        outcome=outcome,
        error_reason=reason,
        error=ending.message,
    )


def _ended(told: _Told) -> Payload:
    ended = told.facts[0]
    assert isinstance(ended, events.RunEnded)
    if isinstance(ended, events.RunCanceled):
        return timer(told.run_id, "cancel_grace")
    if told.asked == "prepare":
        reason = endings.error_reason(ended.status_reason)
        return _sandbox(told, endings.outcome(ended.status_reason), error_reason=reason, error=ended.message)
    decided = told.before.ending
    if told.asked == "collect" and decided is not None:
        lost = ended.message.startswith(endings.NOT_COLLECTED)
        if lost or decided.status is not RunStatus.COMPLETED:
            return _sandbox(told, Outcome.FAILED, error=ended.message.removeprefix(endings.NOT_COLLECTED))
    return timer(told.run_id, "deadline")


def _said(fact: Event, kind: type[Payload]) -> dict[str, Any]:
    """What the message has under the same names as its fact."""
    names = kind.model_fields.keys() & type(fact).model_fields.keys()
    return {name: getattr(fact, name) for name in names}


def _first(told: _Told, kind: type[Fact]) -> Fact | None:
    return next((event for event in told.facts if isinstance(event, kind)), None)


def _unreplayable(event: Event, why: str) -> Unreadable:
    return Unreadable(f"{event.NAME} cannot be replayed: {why}.", code="unreplayable_event")


_READERS: Mapping[type[Event], Callable[[_Told], Payload]] = {
    events.RunSubmitted: _submitted,
    events.CancelRequested: _canceled,
    events.InputReceived: _answered,
    events.InputExpired: _expired,
    events.MessageCompleted: _spoke,
    RunCompacted: _spoke,
    MessageFailed: _charged,
    events.ToolCallCompleted: _ran,
    events.ToolCallFailed: _did_not_run,
    events.ArtifactCreated: _had,
    events.StepCompleted: _had,
    events.RunVerified: _judged,
    SubagentCompleted: _delegated,
    SubagentFailed: _delegated,
    events.StepStarted: _failed,
    events.RunCompleted: _ended,
    events.RunFailed: _ended,
    events.RunCanceled: _ended,
}
"""By the first fact of a step, which says what kind of message led to it."""
