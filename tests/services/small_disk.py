"""A disk that can be full: a small one that is really mounted, or one whose fullness is only claimed."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

_FILLER = "filler"


class Disk(Protocol):
    """What lies below `path` is on it."""

    path: Path

    def fill(self, leave_bytes: int = 0) -> None: ...

    def clear(self) -> None: ...

    def files(self) -> list[str]: ...


MakeDisk = Callable[[Path], AbstractContextManager[Disk]]


class MountedDisk:
    """A memory file system of its own. Needs root."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, leave_bytes: int = 0) -> None:
        facts = os.statvfs(self.path)
        with (self.path / _FILLER).open("wb") as filler:
            filler.write(b"\0" * (facts.f_bavail * facts.f_frsize - leave_bytes))

    def clear(self) -> None:
        (self.path / _FILLER).unlink()

    def files(self) -> list[str]:
        return _files(self.path)


@contextmanager
def mounted(path: Path, size: str = "2m") -> Iterator[MountedDisk]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], check=True)
    try:
        yield MountedDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)


class ClaimedDisk:
    """For who may not mount: while it is full, nothing is made durable and no temporary file is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._patches = pytest.MonkeyPatch()

    def fill(self, leave_bytes: int = 0) -> None:
        def full(*_: object, **__: object) -> NoReturn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if not leave_bytes:
            self._patches.setattr(tempfile, "mkdtemp", full)
        self._patches.setattr(os, "fsync", full)

    def clear(self) -> None:
        self._patches.undo()

    def files(self) -> list[str]:
        return _files(self.path)


@contextmanager
def claimed(path: Path) -> Iterator[ClaimedDisk]:
    path.mkdir(exist_ok=True)
    disk = ClaimedDisk(path)
    try:
        yield disk
    finally:
        disk.clear()


def _files(path: Path) -> list[str]:
    return sorted(
        str(found.relative_to(path)) for found in path.rglob("*") if found.is_file() and found.name != _FILLER
    )
