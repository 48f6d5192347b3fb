"""Log files of bundled servers and services: append-only, private, and bounded in size."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MAX_LOG_BYTES = 16 * 1024 * 1024


def open_log(path: Path) -> int:
    """A descriptor that appends to `path` (0600). Appending is what makes `bound_log` safe under a live writer."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def bound_log(path: Path, max_bytes: int = MAX_LOG_BYTES) -> bool:
    """Moves the content of an oversized log to `<path>.1` and empties it; the writer goes on undisturbed.

    Lines written between the copy and the cut are lost. At most about twice `max_bytes` stay on disk. True if it cut.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
        previous = path.with_name(f"{path.name}.1")
        try:
            shutil.copyfile(path, previous)
            previous.chmod(0o600)
        except OSError:
            # On a full disk the space matters more than the lines.
            previous.unlink(missing_ok=True)
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True


def log_size(path: Path) -> int:
    """Bytes in the log now; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def log_tail(path: Path, since: int, max_bytes: int = 2000) -> str:
    """What was written after offset `since`, its last `max_bytes` bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(since, size), size - max_bytes))
            return file.read().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
