"""Runs code in processes of its own and tells whether processes are really gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codeagent.embedded.spawning import wait_until

ROOT = Path(__file__).resolve().parents[3]


class Script:
    """A Python process whose `report(...)` calls arrive here as JSON lines."""

    def __init__(self, code: str, *arguments: object) -> None:
        preamble = "import json, sys\ndef report(value): print(json.dumps(value), flush=True)\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", preamble + textwrap.dedent(code), *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def next_report(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the script ended with status {self.process.wait(10)} before it reported"
        return json.loads(line)

    def wait(self, timeout_seconds: float) -> int:
        return self.process.wait(timeout_seconds)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        kill_all(with_descendants(self.process.pid))
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_gone(pids: Iterable[int], within_seconds: float) -> bool:
    """Whether all of them end in time; ends the rest itself, so that a failing test leaves nothing behind."""
    expected = list(pids)
    gone = wait_until(lambda: not any(is_running(pid) for pid in expected), within_seconds, interval_seconds=0.02)
    if not gone:
        kill_all(pid for pid in expected if is_running(pid))
    return gone


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def with_descendants(pid: int) -> list[int]:
    """The process and everything below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for known in found:
        found += parents.get(known, [])
    return found
