"""The data directory: where it is by default, who holds it, and how files get into it whole."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import tempfile
import time
import weakref
from pathlib import Path

from codeagent.errors import Unavailable

_LOCK_GRACE_SECONDS = 1.0


def default_data_dir() -> Path:
    """`/var/lib/codeagent` for root, whose home others cannot enter; `~/.local/share/codeagent` for everyone else."""
    if os.geteuid() == 0:
        return Path("/var/lib/codeagent")
    return Path.home() / ".local" / "share" / "codeagent"


def make_directory(path: Path) -> None:
    """Creates `path` and its missing parents, whatever the umask.

    Root's directories let other accounts pass (0711), because the servers in them run as somebody else.
    """
    mode = 0o711 if os.geteuid() == 0 else 0o700
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=mode, exist_ok=True)
        directory.chmod(mode)


def write_atomically(path: Path, content: str, *, durable: bool = False) -> None:
    """Replaces `path` (mode 0600) so that a reader, or a crash if `durable`, finds the old or the new text, whole.

    Written by root, it still belongs to whom it belonged before: the services that read it are somebody else.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            if os.geteuid() == 0 and path.exists():
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in `path` survive a power failure."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Makes everything under `path` survive a power failure: one call on Linux, a walk elsewhere."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).syncfs(handle) == 0:
            return
    finally:
        os.close(handle)
    for entry in path.rglob("*"):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            continue
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class DirectoryLock:
    """Exclusive use of a directory by one process; the kernel lets go of it however the process ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "lock"
        self._handle: int | None = None

    def acquire(self) -> None:
        """Takes the lock. Raises Unavailable (`data_dir_in_use`) naming the process that has it.

        Waits a second at most, for a killed predecessor whose processes are still going away.
        """
        if self._handle is not None:
            return
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        give_up_at = time.monotonic() + _LOCK_GRACE_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < give_up_at:
                    time.sleep(0.02)
                    continue
                holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(handle)
                raise Unavailable(
                    f"the data directory {self._directory} is in use by process {holder}: stop that one first, or "
                    "choose another data directory",
                    code="data_dir_in_use",
                ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle
        # A forked child shares the open file, and would keep the directory locked after we are gone.
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    def release(self) -> None:
        """Lets go; harmless when not held. The file stays: unlinking it would let two processes hold two locks."""
        self._forget()

    def _forget(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
