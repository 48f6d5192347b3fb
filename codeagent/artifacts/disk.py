"""What a disk's failures mean to whoever asked, and how a name is made to survive a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codeagent.errors import Unavailable
from codeagent.telemetry.logs import get_logger

FILE_MODE = 0o640
DIRECTORY_MODE = 0o770

log = get_logger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explained() -> Iterator[None]:
    """Turns `OSError` into `Unavailable`: `storage_full` when there is no room, else `storage_unavailable`."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        log.warning("storage_failed", errno=name)
        if error.errno in _FULL:
            raise Unavailable("the artifact storage is full", code="storage_full") from error
        raise Unavailable(f"the artifact storage failed ({name})", code="storage_unavailable") from error


def make_directory(path: Path) -> None:
    """Makes `path` and its missing parents durably. Raises `OSError`."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directory(path.parent)
        with suppress(FileExistsError):
            path.mkdir()
    path.chmod(DIRECTORY_MODE)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in `path` durable. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
