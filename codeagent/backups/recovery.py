"""A server that replays the archived write-ahead log over the files of a base backup, for as long as that takes."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import shutil
import signal
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from codeagent.backups.wal import parse_position
from codeagent.embedded.accounts import Account
from codeagent.embedded.log_files import log_tail
from codeagent.embedded.spawning import Program, wait_until
from codeagent.errors import CodeAgentError, Rejected, Unavailable

_STOP_SECONDS = 600.0
_LOG_BYTES = 4 << 20
_PORT = "5432"  # names the socket, in a directory of its own
_SETTINGS = {
    # What the backed up server was set to may not work here, and its own files of settings are not touched.
    "listen_addresses": "",
    "shared_preload_libraries": "",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_timezone": "UTC",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "lc_messages": "C",
    "hot_standby": "off",
    # What it writes is brought to the disk once, when it has ended; until then the directory counts as unfinished.
    "fsync": "off",
    "recovery_target_action": "promote",
    # On, and going nowhere: what it writes waits for the archive of the server that will run on it.
    "archive_mode": "on",
    "archive_library": "",
    "archive_command": "",
}
_DAMAGE = re.compile(r"incorrect resource manager data checksum in record at \S+")
_TOLD = {
    "before configured recovery target": (
        "wal_ends_before",
        "the archive ends before that moment, its last transaction is of {last}: without --at all of it is restored",
    ),
    "before consistent recovery point": (
        "wal_ends_before",
        "the backup is not whole by then: choose a later moment",
    ),
    "WAL ends before": ("wal_missing", "the write-ahead log of the backup itself is not whole"),
}


@dataclass(frozen=True, slots=True)
class Replay:
    """What to replay. `at` None is all there is."""

    archive: Path
    timeline: int
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """How far it came: the place of the last record that was replayed, None where there was none to replay; the moment
    of the last transaction, as the server tells it; the timeline that it began."""

    position: int | None
    last: str | None
    timeline: int
    damage: str | None = None
    """Why replay ended, where it was at a record that is not what was written."""


class RecoveringServer:
    """PostgreSQL over a directory with the files of a base backup, reachable for this account alone.

    `superuser` is its first role, whose password is not needed: who may use the socket is seen to by its directory.
    """

    def __init__(self, cluster: Path, programs: Path, account: Account | None, superuser: str) -> None:
        self._cluster = cluster
        self._programs = programs
        self._account = account
        self._superuser = superuser
        self._private = Path(tempfile.mkdtemp(prefix="codeagent-restore-"))
        self._program: Program | None = None
        if account is not None:
            os.chown(self._private, account.uid, account.gid)

    def url(self, database: str) -> str:
        where = f"host={quote(str(self._private), safe='')}&port={_PORT}"
        return f"postgresql:///{quote(database)}?user={quote(self._superuser)}&{where}"

    async def replay(self, replay: Replay) -> Replayed:
        """Starts it, and returns when it has replayed everything and takes connections.

        Raises `Rejected` (`wal_ends_before`, `wal_missing`), `Unavailable` (`recovery_failed`).
        """
        for name, text in {"pg_hba.conf": "local all all trust\n", "pg_ident.conf": "", "postgresql.conf": ""}.items():
            (self._private / name).write_text(text)
            (self._private / name).chmod(0o644)
        (self._cluster / "recovery.signal").touch()
        if self._account is not None:
            os.chown(self._cluster / "recovery.signal", self._account.uid, self._account.gid)
        settings = {**_SETTINGS, **self._own_files(), **_settings_of(replay)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._program = Program(
            [str(self._programs / "postgres"), "-D", str(self._cluster), "-p", _PORT, *options],
            account=self._account,
            log_path=self._private / "log",
            death_signal=signal.SIGINT,
        )
        program = self._program
        await asyncio.to_thread(
            wait_until, lambda: self._is_ready() or program.exit_status is not None, math.inf, interval_seconds=0.02
        )
        log = log_tail(self._private / "log", 0, _LOG_BYTES)
        if program.exit_status is not None:
            raise _failure(log)
        return _replayed(log, replay.timeline)

    async def stop(self) -> None:
        """Shuts it down, what it has on the disk. Raises `Unavailable` where it does not end."""
        program, self._program = self._program, None
        if program is not None and program.exit_status is None:
            program.send(signal.SIGINT)
            if not await asyncio.to_thread(program.wait, _STOP_SECONDS):
                program.send(signal.SIGKILL)
                raise Unavailable("the restored server does not shut down", code="recovery_failed")

    def kill(self) -> None:
        """Ends what is left of it, and removes what it had beside its data."""
        if self._program is not None and self._program.exit_status is None:
            self._program.send(signal.SIGQUIT)
            if not self._program.wait(5.0):
                self._program.send(signal.SIGKILL)
                self._program.wait(5.0)
        shutil.rmtree(self._private, ignore_errors=True)

    def _own_files(self) -> dict[str, str]:
        return {
            "config_file": str(self._private / "postgresql.conf"),
            "hba_file": str(self._private / "pg_hba.conf"),
            "ident_file": str(self._private / "pg_ident.conf"),
            "unix_socket_directories": str(self._private),
        }

    def _is_ready(self) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"


def _settings_of(replay: Replay) -> dict[str, str]:
    # Percent signs are the server's, quotes the shell's.
    archive = shlex.quote(str(replay.archive).replace("%", "%%"))
    settings = {
        "restore_command": f'cp {archive}/%f "%p"',
        "recovery_target_timeline": str(replay.timeline),
    }
    return settings if replay.at is None else {**settings, "recovery_target_time": replay.at.isoformat()}


def _failure(log: str) -> CodeAgentError:
    damaged = _DAMAGE.findall(log)
    if damaged:
        told = f"the archive is damaged before that moment ({damaged[-1]}), its last good transaction is of"
        return Rejected(f"{told} {_last(log) or 'the backup'}", code="wal_damaged")
    fatal = [line.partition("FATAL:")[2].strip() for line in log.splitlines() if "FATAL:" in line]
    for words, (code, told) in _TOLD.items():
        if any(words in line for line in fatal):
            return Rejected(told.format(last=_last(log) or "before it"), code=code)
    reason = fatal[-1] if fatal else log[-300:]
    return Unavailable(f"the backup cannot be recovered: {reason}", code="recovery_failed")


def _replayed(log: str, timeline: int) -> Replayed:
    done = re.findall(r"redo done at ([0-9A-F]+/[0-9A-F]+)", log)
    began = re.findall(r"selected new timeline ID: (\d+)", log)
    damaged = _DAMAGE.findall(log)
    return Replayed(
        parse_position(done[-1]) if done else None,
        _last(log),
        int(began[-1]) if began else timeline,
        damaged[-1] if damaged else None,
    )


def _last(log: str) -> str | None:
    found = re.findall(r"last completed transaction was at log time (\S+ \S+)", log)
    return found[-1] if found else None
