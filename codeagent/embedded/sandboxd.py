"""The privileged helper of the sandbox worker, started by root beside the servers."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from codeagent.embedded.accounts import Account
from codeagent.embedded.directories import make_directory
from codeagent.embedded.log_files import log_size, log_tail
from codeagent.embedded.spawning import Abort, Program, never

PROGRAM = ("-I", "-m", "codeagent.sandboxes.sandboxd")
_STOP_SECONDS = 15.0


class EmbeddedSandboxd:
    """A program of its own and no forked service: what it never had in memory it cannot give away.

    Nobody waits for it at the start: the sandbox worker is not ready before it answers.
    """

    def __init__(self, data_dir: Path, worker: Account, arguments: Sequence[str] = ()) -> None:
        self._data_dir = data_dir
        self._worker = worker
        self._arguments = arguments
        self._program: Program | None = None
        self._log_start = 0

    @property
    def socket(self) -> Path:
        return self._data_dir / "sandboxd" / "socket"

    @property
    def log_path(self) -> Path:
        return self._data_dir / "sandboxd" / "sandboxd.log"

    @property
    def pid(self) -> int | None:
        return self._program.pid if self._program is not None and self._program.exit_status is None else None

    def start(self) -> None:
        """Raises `Unavailable` where the program cannot be run."""
        make_directory(self.socket.parent)
        self._log_start = log_size(self.log_path)
        worker = self._worker
        self._program = Program(
            [
                *(sys.executable, *PROGRAM, "--socket", str(self.socket)),
                *("--state-dir", str(self._data_dir / "sandboxes")),
                *("--worker-uid", str(worker.uid), "--worker-gid", str(worker.gid)),
                *self._arguments,
            ],
            account=None,
            log_path=self.log_path,
            # Politely: what it has on the machine goes with it.
            death_signal=signal.SIGTERM,
            environment={"PATH": os.environ.get("PATH", os.defpath)},
        )

    def restart(self, _abort: Abort = never) -> None:
        self.start()

    def stop(self, timeout_seconds: float = _STOP_SECONDS) -> bool:
        """Ends it with everything it has made; kills it when that takes longer."""
        program, self._program = self._program, None
        if program is None:
            return True
        program.send(signal.SIGTERM)
        if program.wait(timeout_seconds):
            return True
        program.send(signal.SIGKILL)
        return program.wait(timeout_seconds)

    def fault(self) -> str | None:
        """Why it needs a restart, with what it complained of, or None while all is well."""
        if self.pid is not None:
            return None
        complaints = [_complaint(line) for line in log_tail(self.log_path, self._log_start).splitlines()]
        return "; ".join(["it ended", *filter(None, complaints)])


def _complaint(line: str) -> str:
    """What a line of its log complains of, or a line that is none of its own; empty for others."""
    try:
        words = json.loads(line)
        return str(words["event"]) if words["level"] == "error" else ""
    except (ValueError, KeyError, TypeError):
        return line
