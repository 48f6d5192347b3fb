"""Reads from a conversation what has been done so far: the model keeps no state of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.messages.conversation import AssistantMessage, ChatMessage, ToolCall, ToolMessage, UserMessage

_ID = re.compile(r"repair_\d+_([a-z]+)(?:_\d+)?")
_EXIT_CODE = re.compile(r"^exit code: (-?\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one call. `exit_code` None: the command did not end by itself, or it was no command."""

    call: ToolCall
    text: str
    is_error: bool

    @property
    def exit_code(self) -> int | None:
        found = _EXIT_CODE.search(self.text)
        return int(found.group(1)) if found else None


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of ours: its phase and the answers to its calls."""

    phase: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """The task in the user's words and the steps since."""

    task: str
    steps: tuple[Step, ...]

    def last(self, phase: str) -> Step | None:
        return next((step for step in reversed(self.steps) if step.phase == phase), None)

    def count(self, phase: str) -> int:
        return sum(1 for step in self.steps if step.phase == phase)


def call_id(position: int, phase: str, number: int = 0) -> str:
    """An id that says, when it is read again, which phase the call belongs to."""
    return f"repair_{position}_{phase}_{number}"


def read(messages: Sequence[ChatMessage]) -> Progress:
    """Everything since the user last spoke: a new message starts over."""
    start = max((index for index, message in enumerate(messages) if isinstance(message, UserMessage)), default=-1)
    user = messages[start] if start >= 0 else None
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    steps = []
    for message in messages[start + 1 :]:
        if isinstance(message, AssistantMessage) and message.tool_calls:
            found = _ID.fullmatch(message.tool_calls[0].id)
            steps.append(Step(found.group(1) if found else "", _answers(message, answers)))
    return Progress(user.text if isinstance(user, UserMessage) else "", tuple(steps))


def _answers(message: AssistantMessage, known: dict[str, ToolMessage]) -> tuple[Answer, ...]:
    return tuple(
        Answer(call, answer.text if answer else "", answer.is_error if answer else True)
        for call, answer in ((call, known.get(call.id)) for call in message.tool_calls)
    )
