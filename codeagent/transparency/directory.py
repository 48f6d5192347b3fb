"""Checkpoints kept as files: a directory that only gets new ones, named by the size of the log and, where it was
restored, how many times."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from codeagent.clock import new_uuid
from codeagent.errors import Unavailable
from codeagent.transparency.anchors import Look
from codeagent.transparency.checkpoints import Checkpoint, restores_in
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.tables import StoredCheckpoint

_NAME = re.compile(r"(\d{20})(?:\.([1-9]\d*))?\.checkpoint")


class DirectoryAnchor:
    """An `Anchor` of files that are written once."""

    target = "directory"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def newest(self, keys: LogKeys) -> Checkpoint | None:
        try:
            return await asyncio.to_thread(newest_kept, self._folder, keys)
        except OSError as error:
            raise _unusable(error) from None

    async def keep(self, checkpoint: StoredCheckpoint) -> None:
        try:
            await asyncio.to_thread(keep_checkpoint, self._folder, checkpoint.size, checkpoint.note)
        except OSError as error:
            raise _unusable(error) from None

    async def delay_seconds(self) -> float:
        return 0.0


def _unusable(error: OSError) -> Unavailable:
    return Unavailable(f"checkpoints cannot be kept: {error.strerror}")


def newest_kept(folder: Path, keys: LogKeys) -> Checkpoint | None:
    """The longest checkpoint after the newest restore that a directory has and the keys vouch for. Raises
    `OSError`."""
    look = Look(DirectoryAnchor.target, keys)
    for path in sorted(anchor_files(folder), key=_order, reverse=True):
        found = look.take(path.name, path.read_text(encoding="utf-8", errors="replace"))
        if found is not None and path.name != (name := _name(found.size, len(found.cuts))):
            look.longest = None
            look.pass_by(path.name, f"it is what belongs into {name}")
        elif found is not None:
            break
    return look.end()


def anchor_files(folder: Path) -> list[Path]:
    """The kept checkpoints of a directory, the shortest log first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def _name(size: int, restores: int) -> str:
    return f"{size:020d}{f'.{restores}' if restores else ''}.checkpoint"


def _order(path: Path) -> tuple[int, int]:
    """As that of the checkpoints."""
    found = _NAME.fullmatch(path.name)
    return (0, 0) if found is None else (int(found[2] or 0), int(found[1]))


def keep_checkpoint(folder: Path, size: int, note: str) -> None:
    """Writes a checkpoint as a file of its own, read-only, whole and on the disk when this returns. One that is there
    already stays as it is. Raises `OSError`."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / _name(size, restores_in(note))
    temporary = folder / f".{path.name}.{new_uuid()}"  # several relays may have one number and one directory
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # refuses to replace
        except FileExistsError:
            return
    finally:
        temporary.unlink()
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
