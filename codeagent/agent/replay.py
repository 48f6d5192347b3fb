"""Re-execution: the recorded replies of one run, given to another version of its agent. Pure, as all that decides.

Two folds stand side by side, the run's own and the other's, and take the same messages. What they decide is compared,
until one does what the other does not: from there on the recorded replies are answers to what nobody asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import takewhile
from typing import Any, Literal

from codeagent.agent.actions import Action, Difference, actions_of, differences
from codeagent.agent.decide import decide
from codeagent.agent.draft import Decision
from codeagent.agent.prompt import Transcript, build, offered
from codeagent.agent.recording import RecordedStep, timer
from codeagent.agent.state import RunState
from codeagent.messages import commands, events, results
from codeagent.messages.calls import MessageFailed
from codeagent.messages.conversation import SystemMessage, Usage
from codeagent.messages.envelope import Message
from codeagent.messages.values import Outcome

_ANY_WINDOW = 1 << 40
"""Of tokens. What is compared are the words, not where a model's window cuts them."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Two decisions on one message. `on` is the message's name, `step` the run's, `after_version` the stream's version
    before the decision, `agreed_version` that up to which both have the same facts. With `terms` the same is done on
    other terms, with `action` something else is."""

    kind: Literal["action", "terms"]
    step: int
    after_version: int
    agreed_version: int
    on: str
    recorded: dict[str, Any] | None
    other: dict[str, Any] | None
    differs: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class RequestDifference:
    """The first model call that is told something else: its `instructions`, its `tools`, or both."""

    step: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spent:
    """Of the replies that were given to the other version, and of calls that brought none. `cost_usd` is as recorded,
    None where a price was not known."""

    replies: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal | None = Decimal(0)

    def with_call(self, call: events.MessageCompleted | MessageFailed) -> Spent:
        known = self.cost_usd is not None and call.cost_usd is not None
        cost = self.cost_usd + call.cost_usd if known else None  # type: ignore[operator]  # both are known
        replies = self.replies + isinstance(call, events.MessageCompleted)
        return Spent(replies, self.usage + call.usage, cost)


@dataclass(frozen=True, slots=True)
class Replay:
    """`decisions` were compared of `recorded_decisions`. `divergences` are in their order: at most one of the kind
    `action`, the last; those of `terms` stand where their difference is new. `not_reproduced_at` is the version after
    which this program decides otherwise than the recording on the run's own terms: nothing is compared from there."""

    decisions: int
    recorded_decisions: int
    divergences: tuple[Divergence, ...]
    request: RequestDifference | None
    spent: Spent
    not_reproduced_at: int | None = None


@dataclass(slots=True)
class _Fold:
    """One of the two runs: the recorded one, or with a `command` the one that this would have started."""

    command: commands.SubmitRun | None = None
    state: RunState = field(default_factory=RunState)
    told: Transcript = field(default_factory=Transcript)

    def decide(self, message: Message, now: datetime) -> Decision:
        if self.command is not None:
            if isinstance(message.data, commands.SubmitRun):
                message = replace(message, data=self.command)
            elif self._has_time(message):
                return Decision(self.state, (), (), (), False)
        decision = decide(self.state, message, now)
        self.state = decision.state
        for event in decision.events:
            self.told.add(event)
        return decision

    def _has_time(self, message: Message) -> bool:
        """Whether what the run waits for was stopped by a deadline that this run does not have yet."""
        result = message.data
        is_stopped = isinstance(result, results.ProviderResult | results.SandboxResult) and (
            result.outcome is Outcome.CANCELED
        )
        return is_stopped and self.state.cancel is None and self.state.deadline_at > message.envelope.time

    def overdue(self, message: Message) -> Message | None:
        """The end of a question that nobody had answered in the time that this run gives."""
        request = self.state.approval
        if request is None or request.expires_at > message.envelope.time:
            return None
        data = timer(message.envelope.key, "approval_expiry")
        return Message(replace(message.envelope, name=data.NAME, time=request.expires_at), data)


def replay(steps: Sequence[RecordedStep], other: commands.SubmitRun) -> Replay:
    """Gives the messages of a recorded run to the run that `other` would have started."""
    own, changed = _Fold(), _Fold(other)
    divergences: list[Divergence] = []
    request: RequestDifference | None = None
    spent = Spent()
    for number, step in enumerate(steps):
        recorded = own.decide(step.message, step.at)
        if recorded.events != step.events:
            return Replay(number, len(steps), tuple(divergences), request, spent, step.version)
        early = changed.overdue(step.message)
        message = early or step.message
        decided = changed.decide(message, message.envelope.time)
        for event in step.events:
            if isinstance(event, events.MessageCompleted | MessageFailed) and early is None:
                spent = spent.with_call(event)
        found = _compared(step, own.state.step, recorded, decided)
        if found is not None and not _is_known(found, divergences):
            divergences.append(found)
        if found is not None and found.kind == "action":
            return Replay(number + 1, len(steps), tuple(divergences), request, spent)
        request = request or _request(own, changed, recorded)
    return Replay(len(steps), len(steps), tuple(divergences), request, spent)


def _compared(step: RecordedStep, number: int, recorded: Decision, decided: Decision) -> Divergence | None:
    ours, theirs = actions_of(recorded), actions_of(decided)
    pairs = zip(recorded.events, decided.events, strict=False)
    agreed = step.version + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def divergence(kind: Literal["action", "terms"], one: Action | None, other: Action | None) -> Divergence:
        left, right = (None if action is None else action.document() for action in (one, other))
        differs = differences(left or {}, right or {})
        on = step.message.envelope.name
        return Divergence(kind, number, step.version, agreed, on, left, right, differs)

    for place in range(max(len(ours), len(theirs))):
        one = ours[place] if place < len(ours) else None
        other = theirs[place] if place < len(theirs) else None
        if one is None or other is None or (one.what, one.does) != (other.what, other.does):
            return divergence("action", one, other)
    noted, others = _noted(recorded), _noted(decided)
    if noted.does != others.does:
        return divergence("action", noted, others)
    for one, other in zip(ours, theirs, strict=True):
        if one.terms != other.terms:
            return divergence("terms", one, other)
    return None


def _noted(decision: Decision) -> Action:
    """Of two decisions that lead to the same, one may have noted something else of what came."""
    return Action("note", {"events": [event.NAME for event in decision.events]}, {})


def _is_known(found: Divergence, before: Sequence[Divergence]) -> bool:
    """Of terms, each difference is told once: a model that differs does so at every call."""
    return any(found.kind == "terms" and found.differs == earlier.differs for earlier in before)


def _request(own: _Fold, changed: _Fold, recorded: Decision) -> RequestDifference | None:
    if not any(isinstance(effect.command, commands.GenerateReply) for effect in recorded.effects):
        return None
    parts = []
    if _instructions(own.told) != _instructions(changed.told):
        parts.append("instructions")
    if offered(own.told) != offered(changed.told):
        parts.append("tools")
    return RequestDifference(own.state.step, tuple(parts)) if parts else None


def _instructions(told: Transcript) -> list[str]:
    return [message.text for message in build(told, _ANY_WINDOW) if isinstance(message, SystemMessage)]
