"""The conversation as a model knows it: replies, each followed by the answers to its calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codeagent.messages.conversation import AssistantMessage, ChatMessage, ToolCall, ToolMessage, UserMessage

INTERRUPTED = "[no output: the call was interrupted]"

Turn = AssistantMessage | ToolMessage | UserMessage
"""What follows the task: replies, answers to their calls, and what the platform tells the model meanwhile."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A reply, the answers to its calls in their order, and what was told after them. `version` is that of the reply
    in the run's stream."""

    version: int
    messages: tuple[Turn, ...]

    @property
    def size(self) -> int:
        return size(self.messages)


def exchanges(turns: Iterable[tuple[int, Turn]]) -> list[Exchange]:
    """`turns` with their versions. Every call has an answer, in whatever order they came: where none was recorded, one
    says that it was interrupted, since vendors refuse a history with a call left open."""
    grouped: list[tuple[int, list[Turn]]] = []
    for version, turn in turns:
        if isinstance(turn, AssistantMessage):
            grouped.append((version, [turn]))
        elif grouped:
            grouped[-1][1].append(turn)
    return [Exchange(version, _ordered(group)) for version, group in grouped]


def _ordered(group: Sequence[Turn]) -> tuple[Turn, ...]:
    reply = group[0]
    assert isinstance(reply, AssistantMessage)
    answers = {turn.tool_call_id: turn for turn in group if isinstance(turn, ToolMessage)}
    told = [turn for turn in group if isinstance(turn, UserMessage)]
    calls = {call.id: call for call in reply.tool_calls}
    return (reply, *(answers.get(call.id) or _interrupted(call) for call in calls.values()), *told)


def _interrupted(call: ToolCall) -> ToolMessage:
    return ToolMessage(tool_call_id=call.id, name=call.name, text=INTERRUPTED, is_error=True)


def size(messages: Iterable[ChatMessage]) -> int:
    """In characters, with something for what vendors put around each message and call."""
    return sum(_size(message) for message in messages)


def _size(message: ChatMessage) -> int:
    characters = len(message.text) + 20
    if isinstance(message, AssistantMessage):
        characters += sum(len(call.name) + len(call.arguments) + 20 for call in message.tool_calls)
    return characters
