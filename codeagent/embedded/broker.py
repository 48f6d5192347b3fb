"""The bundled Kafka-protocol broker: in memory, on loopback, gone with the process that started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import TracebackType

from codeagent.embedded.accounts import BROKER_UID, Account, require_reachable, service_account
from codeagent.embedded.binaries import broker_program
from codeagent.embedded.directories import make_directory
from codeagent.embedded.kafka_probe import answers_kafka
from codeagent.embedded.log_files import log_size, log_tail
from codeagent.embedded.ports import free_port, is_free
from codeagent.embedded.spawning import Abort, Program, never, wait_until
from codeagent.errors import Unavailable

_LAUNCH_ATTEMPTS = 8


class EmbeddedBroker:
    """One single-node broker on 127.0.0.1. It remembers nothing across a restart: the ledgers send again what matters.

    It keeps every record for as long as it lives, whatever a topic's retention says, so `fault` asks for a restart
    once it holds `max_memory_bytes`. `data_dir` holds its log only. It differs from Apache Kafka in what a client
    sees: no idempotent producers and no deletion of records; the end offset it tells is the first one of the last
    batch; and it lets a member into a group only after half its session timeout, a second at least, with static
    membership six.
    """

    def __init__(
        self,
        data_dir: Path,
        program: Path | None = None,
        *,
        runtime_dir: Path | None = None,
        port: int | None = None,
        max_memory_bytes: int = 1 << 30,
        start_timeout_seconds: float = 15.0,
    ) -> None:
        self._root = data_dir.absolute()
        self._given_program = program
        self._runtime_dir = runtime_dir or self._root.parent / "runtime"
        self._port = port
        self._port_is_fixed = port is not None
        self._max_memory_bytes = max_memory_bytes
        self._start_timeout_seconds = start_timeout_seconds
        self._program: Program | None = None

    @property
    def log_path(self) -> Path:
        return self._root / "broker.log"

    @property
    def pid(self) -> int | None:
        return self._program.pid if self._program is not None and self.is_alive() else None

    @property
    def bootstrap_servers(self) -> str:
        """`127.0.0.1:<port>`, the same for the life of this object once started."""
        if self._port is None:
            raise Unavailable("the broker has not been started", code="broker_failed")
        return f"127.0.0.1:{self._port}"

    def start(self, abort: Abort = never) -> str:
        """Starts the broker, waits until it answers the Kafka protocol, and returns `bootstrap_servers`.

        Raises Rejected when this machine cannot run it, Unavailable (`port_taken`, `broker_failed`) when it might
        later.
        """
        if self.is_alive():
            return self.bootstrap_servers
        make_directory(self._root)
        account = service_account(BROKER_UID, self._root / "nothing-to-own")
        program = self._given_program or broker_program(self._runtime_dir, account)
        require_reachable(program, account)
        try:
            self._launch(program, account, abort)
        except BaseException:
            self.stop()
            raise
        return self.bootstrap_servers

    def restart(self, abort: Abort = never) -> None:
        """Starts the broker again, empty, on the same port."""
        self.stop()
        self._port_is_fixed = self._port is not None
        self.start(abort)

    def stop(self, timeout_seconds: float = 5.0) -> bool:
        """Kills the broker: it has nothing to save, and with clients connected it ignores polite requests."""
        program, self._program = self._program, None
        if program is None:
            return True
        program.send(signal.SIGKILL)
        return program.wait(timeout_seconds)

    def is_alive(self) -> bool:
        return self._program is not None and self._program.exit_status is None

    def fault(self) -> str | None:
        """Why the broker needs a restart, or None while all is well."""
        if not self.is_alive():
            return "ended by itself"
        if self.memory_bytes() > self._max_memory_bytes:
            return f"holds more than {self._max_memory_bytes >> 20} MiB"
        return None

    def memory_bytes(self) -> int:
        """Resident memory of the broker; 0 when it is not running or the system does not tell."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _launch(self, program: Path, account: Account | None, abort: Abort) -> None:
        for _ in range(_LAUNCH_ATTEMPTS):
            port = self._port if self._port_is_fixed and self._port is not None else free_port()
            if not is_free(port):
                raise Unavailable(f"port {port} on 127.0.0.1 is taken by another process", code="port_taken")
            log_start = log_size(self.log_path)
            self._program = Program(
                _command(program, port), account=account, log_path=self.log_path, death_signal=signal.SIGKILL
            )
            ready = wait_until(
                lambda port=port: not self.is_alive() or answers_kafka("127.0.0.1", port),  # type: ignore[misc]
                self._start_timeout_seconds,
                abort,
            )
            if not ready:
                why = "told to give up" if abort() else f"no answer within {self._start_timeout_seconds:.0f} s"
                raise Unavailable(f"the broker did not start: {why}", code="broker_failed")
            # Who answers may be a stranger that took the port first; then our own process has ended.
            if self.is_alive():
                self._port = port
                return
            output = log_tail(self.log_path, log_start)
            if self._port_is_fixed or is_free(port):
                raise Unavailable(f"the broker did not start: {output or 'it ended at once'}", code="broker_failed")
        raise Unavailable(f"the broker did not start in {_LAUNCH_ATTEMPTS} attempts", code="broker_failed")


def _command(program: Path, port: int) -> list[str]:
    url = f"tcp://127.0.0.1:{port}"
    where = ["--listener-url", url, "--advertised-listener-url", url]
    return [str(program), "broker", *where, "--storage-engine", "memory://tansu/", "--silent"]
