"""Finds and stops PostgreSQL processes that a killed predecessor left on a data directory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from codeagent.embedded.spawning import wait_until
from codeagent.errors import Unavailable

_PROC = Path("/proc")


def stop_leftovers(directory: Path) -> int:
    """Stops every PostgreSQL process that works in `directory`; returns how many there were.

    The caller holds the lock of the directory, so none of them has a living owner. A `postmaster.pid` that then
    still lies there is removed: its number may since have been given to an innocent process, for which PostgreSQL
    would refuse to start. Raises Unavailable when a process survives SIGKILL.
    """
    found = _working_in(directory)
    for number, patience_seconds in ((signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0)):
        remaining = _working_in(directory)
        if not remaining:
            break
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        wait_until(lambda: not _working_in(directory), patience_seconds, interval_seconds=0.02)
    if remaining := _working_in(directory):
        raise Unavailable(
            f"PostgreSQL processes {remaining} of an earlier start still use {directory} and do not end",
            code="data_dir_in_use",
        )
    (directory / "postmaster.pid").unlink(missing_ok=True)
    return len(found)


def _working_in(directory: Path) -> list[int]:
    recorded = _recorded_pid(directory)
    if _PROC.is_dir():
        candidates = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
        return [pid for pid in candidates if _is_server_process(pid, directory, recorded)]
    if recorded is None:
        return []
    listing = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(recorded)], capture_output=True, check=False)
    return [recorded] if _starts_server(listing.stdout.split(), directory) else []


def _is_server_process(pid: int, directory: Path, recorded: int | None) -> bool:
    """PostgreSQL processes live in their data directory, which nobody but them and an operator's shell does."""
    try:
        if (_PROC / str(pid) / "comm").read_text().strip() not in ("postgres", "postmaster"):
            return False
        if (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        return (_PROC / str(pid) / "cwd").readlink() == directory.resolve()
    except PermissionError:
        # A container's root may not look into other accounts' processes; their command line is public.
        return pid == recorded and _starts_server((_PROC / str(pid) / "cmdline").read_bytes().split(b"\0"), directory)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _starts_server(words: list[bytes], directory: Path) -> bool:
    return bool(words) and words[0].endswith(b"postgres") and os.fsencode(directory) in words


def _recorded_pid(directory: Path) -> int | None:
    try:
        return int((directory / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
