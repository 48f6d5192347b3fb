"""Scripted conversations: what the model behind the real HTTP server says, by turn."""

from __future__ import annotations

import json
import threading

from tests.servers.script import Call, Reply, Script


def tool(name: str, turn: int, **arguments: object) -> Call:
    return Call(name, json.dumps(arguments), f"call_{turn}")


def line_writer(calls: int, *, model_seconds: float = 0.0, command_seconds: float = 0.0) -> Script:
    """Appends one unique line a call to `lines.txt`, then submits."""
    replies = [
        Reply(
            text=f"Writing line {turn}. ",
            calls=(tool("shell", turn, command=f"sleep {command_seconds}; echo line-{turn} >> lines.txt"),),
            delay_seconds=model_seconds,
        )
        for turn in range(calls)
    ]
    return Script([*replies, Reply(calls=(tool("submit", calls, summary="All lines are written."),))], "turn")


class LinesUntilToldToStop(Script):
    """Appends one unique line a call to `lines.txt`, at least `least` and at most `most`, until `enough` is set."""

    def __init__(self, *, least: int, most: int, model_seconds: float, command_seconds: float) -> None:
        super().__init__(mode="turn")
        self.enough = threading.Event()
        self._least, self._most = least, most
        self._model_seconds = model_seconds
        self._command = f"sleep {command_seconds}; echo line-%d >> lines.txt"

    def next(self, assistant_messages: int) -> tuple[int, Reply]:
        turn = assistant_messages
        if turn >= self._most or (turn >= self._least and self.enough.is_set()):
            return turn, Reply(calls=(tool("submit", turn, summary="All lines are written."),))
        call = tool("shell", turn, command=self._command % turn)
        return turn, Reply(text=f"Writing line {turn}. ", calls=(call,), delay_seconds=self._model_seconds)


def ten_tool_calls() -> Script:
    """One of everything: look, search, read, run, edit, write, fail, check, and submit."""
    steps = [
        tool("shell", 0, command="ls"),
        tool("search", 1, pattern="def add"),
        tool("read_file", 2, path="calc.py"),
        tool("shell", 3, command="python -m pytest -q"),
        tool("edit_file", 4, path="calc.py", old="return a - b", new="return a + b"),
        tool("edit_file", 5, path="calc.py", old="no such text", new="x"),
        tool("write_file", 6, path="docs/notes.txt", content="fixed add\n"),
        tool("read_file", 7, path="../../etc/passwd"),
        tool("shell", 8, command="python -m pytest -q"),
        tool("submit", 9, summary="add() adds again."),
    ]
    return Script([Reply(text=f"Step {n}.", calls=(step,)) for n, step in enumerate(steps)], "turn")


BROKEN = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "test_calc.py": "from calc import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n",
}
EMPTY = {"README": "nothing yet\n"}
