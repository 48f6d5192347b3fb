"""Checkpoints kept as files: a directory that only gets new ones, named by the size of the log."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from codeagent.clock import new_uuid
from codeagent.errors import Unavailable
from codeagent.telemetry.logs import get_logger
from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import NoteRejected
from codeagent.transparency.tables import StoredCheckpoint

log = get_logger(__name__)

_NAME = re.compile(r"\d{20}\.checkpoint")


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
    """The longest checkpoint of a directory that the keys vouch for. Raises `OSError`."""
    for path in reversed(anchor_files(folder)):
        try:
            return open_checkpoint(path.read_text(encoding="utf-8", errors="replace"), keys.origin, keys.verifying)
        except NoteRejected as error:
            log.error("anchor.unreadable", name=path.name, reason=error.detail)
    return None


def anchor_files(folder: Path) -> list[Path]:
    """The kept checkpoints of a directory, the shortest log first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def keep_checkpoint(folder: Path, size: int, note: str) -> None:
    """Writes a checkpoint as a file of its own, read-only, whole and on the disk when this returns. One that is there
    already stays as it is. Raises `OSError`."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / f"{size:020d}.checkpoint"
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
