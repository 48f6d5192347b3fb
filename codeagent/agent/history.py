"""What was said in a session before a run, kept within bounds: a fact of the run's own stream."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json

from codeagent.messages.values import Turn

HISTORY_BYTES = 32 << 10
_TEXT_BYTES = 12_000
"""Of a task or an answer: the newest turn always fits."""
_CUT = " [...]"


def extended(earlier: Sequence[Turn], turn: Turn) -> tuple[Turn, ...]:
    """The turns, oldest first, with one more; the oldest go where all together are too long."""
    turns = [*earlier, turn.model_copy(update={"task": _cut(turn.task), "answer": _cut(turn.answer)})]
    left = HISTORY_BYTES
    for index in range(len(turns) - 1, -1, -1):
        left -= len(turns[index].model_dump_json().encode())
        if left < 0:
            return tuple(turns[index + 1 :])
    return tuple(turns)


def _cut(text: str) -> str:
    """At most so many bytes as JSON has them, which spells some characters with six."""
    if len(to_json(text)) <= _TEXT_BYTES:
        return text
    left = _TEXT_BYTES - len(_CUT) - 2
    for place, character in enumerate(text):
        left -= len(to_json(character)) - 2
        if left < 0:
            return text[:place] + _CUT
    return text
