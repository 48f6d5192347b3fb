"""What a worker tells its machine's operators of its workspaces, and what they ask of it: small files beside them.

A note holds ids, times and states, and nothing that a run was given or has written. `notes/<name>.json` is replaced
as a whole; `notes/<name>.end` asks for the end of what runs in that workspace. Only the worker's user gets in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

_NOTE, _ORDER, _HALF_WRITTEN = ".json", ".end", ".new"


@dataclass(frozen=True, slots=True)
class Note:
    """One workspace as its worker left it. `since` is when it came into its state, as RFC 3339 in UTC; `operation` and
    `effect_id` name what runs in it."""

    workspace: str
    run_id: str
    tenant_id: str
    driver: str
    level: int
    worker_pid: int
    opened_at: str
    state: Literal["working", "idle"]
    since: str
    operation: str = ""
    effect_id: str = ""


class Notes:
    """The notes of one state directory. Blocking. Every method may raise `OSError`."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "notes"

    def prepare(self) -> None:
        """Begins anew: what a worker that died has left there is of no workspace any more."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)

    def write(self, note: Note) -> None:
        self._replace(note.workspace + _NOTE, json.dumps(asdict(note)))

    def remove(self, workspace: str) -> None:
        for suffix in (_NOTE, _ORDER):
            (self._folder / (workspace + suffix)).unlink(missing_ok=True)

    def all(self) -> Iterator[Note]:
        """Every note that can be read, by the workspace's name."""
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.glob("*" + _NOTE)):
                note = _read(path)
                if note is not None:
                    yield note

    def ask_to_end(self, workspace: str, operator: str) -> None:
        """`operator`: an id of who asks. The worker looks within a second."""
        self._replace(workspace + _ORDER, operator)

    def asked(self, workspace: str) -> bool:
        return (self._folder / (workspace + _ORDER)).exists()

    def take_orders(self) -> list[tuple[str, str]]:
        """(workspace, operator) of what was asked since the last call; it is asked no more."""
        taken = []
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.glob("*" + _ORDER)):
                taken.append((path.name.removesuffix(_ORDER), path.read_text("utf-8")))
                path.unlink(missing_ok=True)
        return taken

    def _replace(self, name: str, text: str) -> None:
        half = self._folder / (name + _HALF_WRITTEN)
        half.touch(mode=0o600)
        half.write_text(text, encoding="utf-8")
        half.replace(self._folder / name)


def _read(path: Path) -> Note | None:
    """None for what another version wrote, or is being replaced."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return Note(**{field.name: found[field.name] for field in fields(Note)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
