"""Where another run can go on with a recorded one: at the versions at which its conversation is whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from codeagent.agent.state import RunState, evolve
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.messages.values import Files


@dataclass(slots=True)
class Conversation:
    """A run's, as its stream is read. `arguments` are the artifacts of calls that were too long to travel."""

    state: RunState = field(default_factory=RunState)
    arguments: list[str] = field(default_factory=list)
    _just_said: bool = False

    def add(self, event: Event) -> None:
        """Takes the next event of the run's stream."""
        self.state = evolve(self.state, event)
        self._just_said = isinstance(event, events.MessageCompleted)
        if isinstance(event, events.MessageCompleted):
            self.arguments += [call.arguments_ref for call in event.tool_calls if call.arguments_ref is not None]

    @property
    def is_whole(self) -> bool:
        """Whether a model could be asked next: the run has begun, its calls are answered, no person is asked, and it
        does not end. A reply is no end of its own: what follows it says whether there is more."""
        state = self.state
        calls = state.queue or any(pending.call is not None for pending in state.open)
        ends = state.ending is not None or state.status.terminal
        return state.submitted is not None and not (calls or state.approval or ends or self._just_said)

    @property
    def files(self) -> Files | None:
        """As the run had left them; None where it had none yet."""
        state = self.state
        if state.base is not None:
            return Files(base=state.base, checkpoint=state.checkpoint)
        return None if state.submitted is None else state.submitted.continues


def whole_until(facts: Iterable[Event], most: int) -> int:
    """The newest version up to `most` at which the conversation of a run, given from its first fact on, is whole; 1,
    its beginning, at least."""
    conversation, newest = Conversation(), 1
    for version, fact in enumerate(facts, start=1):
        if version > most:
            break
        conversation.add(fact)
        if conversation.is_whole:
            newest = version
    return newest
