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
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from codeagent.cli.client import Client
from codeagent.cli.connection import Connection
from codeagent.cli.up import PRINCIPAL, TENANT
from codeagent.identity.keys import digest_of_key, new_key

ROLES = ("edge", "agent-worker", "provider-worker", "sandbox-worker", "relay")
LEASE_SECONDS = 3.0
LEASES = {"CODEAGENT_LEASE_SECONDS": str(LEASE_SECONDS), "CODEAGENT_MAX_ATTEMPTS": "15"}
READY_SECONDS = 90.0


CODEAGENT = (sys.executable, "-m", "codeagent")
ROOT = Path(__file__).resolve().parents[2]


class System(Protocol):
    """A running system. `caller` is the tenant and the principal behind its API key."""

    connection: Connection
    caller: tuple[str, str]
    database_url: str

    def signal(self, role: str, number: signal.Signals) -> None: ...

    def tend(self) -> None:
        """Starts again what has ended, where nobody else does."""
        ...

    def twin(self, role: str) -> subprocess.Popen[bytes]:
        """A second process of a role, which knows nothing of the first: it takes every partition for its own."""
        ...

    def stop(self) -> None: ...


def client(system: System) -> Client:
    return Client(system.connection)


def codeagent(*arguments: str) -> list[str]:
    return [*CODEAGENT, *arguments]


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
    """`codeagent up` in a process of its own. `program` stands for `codeagent`."""

    caller = (TENANT, PRINCIPAL)

    def __init__(self, data_dir: Path, *arguments: str, program: Sequence[str] = CODEAGENT, **environment: str) -> None:
        self.data_dir = data_dir
        self._program = program
        self._log = (data_dir.parent / f"{data_dir.name}.log").open("wb")
        self.process = subprocess.Popen(
            [*program, "up", "--data-dir", str(data_dir), *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **LEASES, **environment},
            cwd=ROOT,
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

    def tend(self) -> None:
        """Its supervisor does."""

    def twin(self, role: str) -> subprocess.Popen[bytes]:
        settings = json.loads((self.data_dir / "settings.json").read_text())
        written = {f"CODEAGENT_{name.upper()}": str(value) for name, value in settings.items()}
        # The helper lets in the services' user alone, which this interpreter need not be open to.
        own = {"CODEAGENT_SANDBOX_DIR": str(self.data_dir.parent / "twin"), "CODEAGENT_SANDBOX_HELPER": ""}
        return subprocess.Popen(
            [*self._program, "serve", role],
            env={**os.environ, **written, **own},
            stderr=self._log,
            cwd=ROOT,
            group=(self.data_dir / "artifacts").stat().st_gid,
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()


class ServedSystem:
    """One `codeagent serve` process a role, on a broker and a database that are already there."""

    caller = ("ten_t", "usr_t")

    def __init__(
        self, directory: Path, database_url: str, environment: dict[str, str], program: Sequence[str] = CODEAGENT
    ) -> None:
        self.database_url = database_url
        self._directory = directory
        self._program = program
        key, port = new_key(), free_port()
        keys = directory / "api-keys.json"
        tenant_id, principal_id = self.caller
        entry = {
            "key_id": "key_t",
            "sha256": digest_of_key(key),
            "tenant_id": tenant_id,
            "principal_id": principal_id,
        }
        keys.write_text(json.dumps([entry]))
        self._environment = {
            **os.environ,
            "CODEAGENT_DATABASE_URL": database_url,
            "CODEAGENT_HTTP_PORT": str(port),
            "CODEAGENT_API_KEYS_FILE": str(keys),
            "CODEAGENT_ARTIFACTS_DIR": str(directory / "artifacts"),
            "CODEAGENT_SANDBOX_DIR": str(directory / "sandboxes"),
            **LEASES,
            "CODEAGENT_TOPICS_PROFILE": "dev",
            "CODEAGENT_KAFKA_REPLICATION": "1",
            **environment,
        }
        self.connection = Connection(f"http://127.0.0.1:{port}", key)
        self._logs: list[IO[bytes]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.run("db", "upgrade")
        self.run("topics", "apply")
        for role in ROLES:
            self._start(role)
        wait_until(lambda: is_ready(self.connection.url), READY_SECONDS, "the edge to be ready")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            codeagent(*arguments), env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start(self, role: str) -> None:
        self.processes[role] = self._started(role, self._environment)

    def _started(self, role: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        log = (self._directory / f"{role}.log").open("ab")
        self._logs.append(log)
        return subprocess.Popen([*self._program, "serve", role], env=environment, stderr=log, cwd=ROOT)

    def tend(self) -> None:
        for role, process in self.processes.items():
            if process.poll() is not None:
                self._start(role)

    def twin(self, role: str) -> subprocess.Popen[bytes]:
        own = {"CODEAGENT_SANDBOX_DIR": str(self._directory / "twin"), "CODEAGENT_KAFKA_SOLE_MEMBER": "true"}
        return self._started(role, {**self._environment, **own})

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
