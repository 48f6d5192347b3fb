"""The served system with a second edge beside the first."""

from __future__ import annotations

import subprocess
from pathlib import Path

from codeagent.cli.connection import Connection
from tests.acceptance.system import READY_SECONDS, ServedSystem, free_port, is_ready, wait_until


class TwoEdges(ServedSystem):
    """`connection` leads to the first edge, `second` to the other; both know the same key."""

    def __init__(self, directory: Path, database_url: str, environment: dict[str, str]) -> None:
        super().__init__(directory, database_url, environment)
        port = free_port()
        self._of_second = {**self._environment, "CODEAGENT_HTTP_PORT": str(port)}
        self.second = Connection(f"http://127.0.0.1:{port}", self.connection.api_key)
        self._start_second()
        wait_until(lambda: is_ready(self.second.url), READY_SECONDS, "the second edge to be ready")

    def _start_second(self) -> None:
        self.processes["second edge"] = self._started("edge", self._of_second)

    def restart_first(self) -> int:
        """Asks it to stop, waits until it has, and starts it anew; returns its exit status."""
        status = _ended(self.processes["edge"])
        self._start("edge")
        return status

    def kill_second(self) -> None:
        """SIGKILL, and a new one in its place."""
        self.processes["second edge"].kill()
        self.processes["second edge"].wait()
        self._start_second()


def _ended(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    return process.wait(60)
