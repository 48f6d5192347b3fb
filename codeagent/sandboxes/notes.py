"""What a worker tells its machine's operators of its workspaces, and what they ask of it: small files beside them.

A note holds ids, times and states, and nothing that a run was given or has written. `notes/<name>.json` is replaced
as a whole; `notes/<name>.end` asks for the end of what runs in that workspace. Only the worker's user gets in.

Operators who are root read and write here what an unprivileged worker may have put here: it follows no link, and
believes no note that is not as a worker writes it.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

_NOTE, _ORDER = ".json", ".end"
_MOST_NOTE_BYTES = 64 << 10


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

    def give_to(self, uid: int, gid: int) -> None:
        """Lets a worker of that user keep its notes in a state directory that is not its own."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(self._folder, uid, gid)

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
        half = self._folder / f"{name}.{secrets.token_hex(6)}"
        owner = self._folder.stat()
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                if owner.st_uid != os.geteuid():
                    os.fchown(handle, owner.st_uid, owner.st_gid)
            half.replace(self._folder / name)
        except BaseException:
            half.unlink(missing_ok=True)
            raise


def _read(path: Path) -> Note | None:
    """None for what another version wrote, is being replaced, or no worker would write."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            found: dict[str, Any] = json.loads(file.read(_MOST_NOTE_BYTES))
        values = {each.name: found[each.name] for each in fields(Note)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = all(type(values[name]) is int for name in ("level", "worker_pid"))
    words = [value for name, value in values.items() if name not in ("level", "worker_pid")]
    if not numbers or not all(isinstance(word, str) and word.isprintable() for word in words):
        return None
    note = Note(**values)
    return note if note.workspace == path.name.removesuffix(_NOTE) else None
