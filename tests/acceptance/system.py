"""The whole system as real processes, in both shapes: `codeagent up` on one machine, and `codeagent serve` on Kafka."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Protocol

from codeagent.cli.client import Client
from codeagent.cli.connection import Connection
from codeagent.identity.keys import digest_of_key, new_key

ROLES = ("edge", "agent-worker", "provider-worker", "sandbox-worker", "relay")
SECOND_EDGE = "edge-2"
LEASE_SECONDS = 3.0
READY_SECONDS = 90.0


class System(Protocol):
    """A running system. `kill` takes a role down with SIGKILL; it comes up again, by itself or at once."""

    connection: Connection
    database_url: str

    def kill(self, role: str) -> None: ...

    def signal(self, role: str, number: signal.Signals) -> None: ...

    def stop(self) -> None: ...


def client(system: System) -> Client:
    return Client(system.connection)


def codeagent(*arguments: str, **environment: str) -> list[str]:
    return [sys.executable, "-m", "codeagent", *arguments]


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until(holds: object, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]  # a callable
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class UpSystem:
    """`codeagent up` in a process of its own."""

    def __init__(self, data_dir: Path, *arguments: str, **environment: str) -> None:
        self.data_dir = data_dir
        self._log = (data_dir.parent / f"{data_dir.name}.log").open("wb")
        lease = {"CODEAGENT_LEASE_SECONDS": str(LEASE_SECONDS), "CODEAGENT_MAX_ATTEMPTS": "15"}
        self.process = subprocess.Popen(
            codeagent("up", "--data-dir", str(data_dir), *arguments),
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **lease, **environment},
        )
        self.ready_seconds = self._await_ready()
        found = json.loads((data_dir / "connection.json").read_text())
        self.connection = Connection(found["url"], found["api_key"])
        self.database_url = json.loads((data_dir / "settings.json").read_text())["database_url"]

    def _await_ready(self) -> float:
        begun = time.monotonic()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"CodeAgent is ready"):
                return time.monotonic() - begun
        raise AssertionError(f"`codeagent up` did not become ready: {self.log()[-4_000:]}")

    def log(self) -> str:
        return (self.data_dir.parent / f"{self.data_dir.name}.log").read_text(errors="replace")

    def pids(self) -> dict[str, int]:
        return dict(json.loads((self.data_dir / "processes.json").read_text()))

    def kill(self, role: str) -> None:
        before = self.pids().get(role)
        if before is None:
            return
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.pids().get(role) not in {None, before}, 15, f"{role} to be started again")

    def signal(self, role: str, number: signal.Signals) -> None:
        os.kill(self.pids()[role], number)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()


class ServedSystem:
    """One `codeagent serve` process a role, on a broker and a database that are already there. There may be a second
    edge, `edge-2`, beside the first."""

    def __init__(
        self, directory: Path, database_url: str, environment: dict[str, str], *, second_edge: bool = False
    ) -> None:
        self.database_url = database_url
        self._directory = directory
        key, port = new_key(), free_port()
        keys = directory / "api-keys.json"
        entry = {"key_id": "key_t", "sha256": digest_of_key(key), "tenant_id": "ten_t", "principal_id": "usr_t"}
        keys.write_text(json.dumps([entry]))
        self._environment = {
            **os.environ,
            "CODEAGENT_DATABASE_URL": database_url,
            "CODEAGENT_HTTP_PORT": str(port),
            "CODEAGENT_API_KEYS_FILE": str(keys),
            "CODEAGENT_ARTIFACTS_DIR": str(directory / "artifacts"),
            "CODEAGENT_SANDBOX_DIR": str(directory / "sandboxes"),
            "CODEAGENT_LEASE_SECONDS": str(LEASE_SECONDS),
            "CODEAGENT_MAX_ATTEMPTS": "15",
            "CODEAGENT_TOPICS_PROFILE": "dev",
            "CODEAGENT_KAFKA_REPLICATION": "1",
            **environment,
        }
        self.connection = Connection(f"http://127.0.0.1:{port}", key)
        self._names = (*ROLES, SECOND_EDGE) if second_edge else ROLES
        self._second_port = free_port()
        self.second = Connection(f"http://127.0.0.1:{self._second_port}", key)
        self._logs: list[IO[bytes]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.run("db", "upgrade")
        self.run("topics", "apply")
        for name in self._names:
            self._start(name)
        for name in self._names:
            if name.startswith("edge"):
                self.await_edge(name)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            codeagent(*arguments), env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start(self, name: str) -> None:
        log = (self._directory / f"{name}.log").open("ab")
        self._logs.append(log)
        own = {"CODEAGENT_HTTP_PORT": str(self._second_port)} if name == SECOND_EDGE else {}
        command = codeagent("serve", name.removesuffix("-2"))
        self.processes[name] = subprocess.Popen(command, env={**self._environment, **own}, stderr=log)

    def await_edge(self, name: str) -> None:
        url = (self.second if name == SECOND_EDGE else self.connection).url
        wait_until(lambda: is_ready(url), READY_SECONDS, f"{name} to be ready")

    def log(self) -> str:
        return "".join((self._directory / f"{name}.log").read_text(errors="replace") for name in self._names)

    def restart(self, name: str) -> int:
        """Asks a process to stop, waits until it has, and starts it anew; returns its exit status."""
        self.processes[name].terminate()
        status = self.processes[name].wait(30)
        self._start(name)
        return status

    def kill(self, role: str) -> None:
        self.processes[role].kill()
        self.processes[role].wait()
        self._start(role)

    def signal(self, role: str, number: signal.Signals) -> None:
        self.processes[role].send_signal(number)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self._logs:
            log.close()
