"""Takes a base backup: whole, verified, and on the disk before it has a name."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from codeagent import __version__
from codeagent.backups import tables
from codeagent.backups.programs import find_programs, run_program
from codeagent.backups.repository import Backup, Layout, Repository
from codeagent.embedded.directories import sync_directory, sync_tree
from codeagent.errors import Rejected, Unavailable
from codeagent.eventlog.database import Database

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Source:
    """A running server. `url` has the password; its role may replicate. `bundled` finds the programs of the wheel."""

    url: str
    layout: Layout
    bin_dir: Path | None
    bundled: Callable[[], Path]


async def take_backup(repository: Repository, source: Source) -> Backup:
    """What fails leaves nothing. Raises `Rejected`: `programs_missing`, `tablespaces_not_supported`, `another_system`,
    `backup_damaged`; `Unavailable`: `backup_failed`, `data_dir_in_use` while another one changes the directory."""
    database = Database(source.url, connections=1, name="codeagent-backup", timeout_seconds=60)
    try:
        server = await tables.server_of(database)
        state = await tables.log_state(database)
        programs = find_programs("pg_basebackup", server.major, source.bin_dir, source.bundled)
        lock = repository.prepare()
        try:
            _require_same_system(repository, server)
            repository.remove_left_overs()
            staging = Path(tempfile.mkdtemp(dir=repository.folder, prefix=".taking-"))
            try:
                await _copy(programs, source.url, staging / "cluster")
                is_verified = await verify_files(programs, staging / "cluster")
                taken_at = _rounded_up(await tables.server_time(database))
                backup = Backup(
                    label=taken_at.strftime("%Y%m%dT%H%M%SZ"),
                    layout=source.layout,
                    release=__version__,
                    taken_at=taken_at,
                    postgres=server.version,
                    major=server.major,
                    system_identifier=server.system_identifier,
                    segment_bytes=server.segment_bytes,
                    database=server.database,
                    superuser=server.superuser,
                    schema_version=state.schema,
                    last_event=None if state.last_event is None else str(state.last_event),
                    last_event_at=state.last_event_at,
                    entries=state.entries,
                    outside=server.outside,
                    is_verified=is_verified,
                    **_of_manifest(staging / "cluster"),
                )
                _publish(repository, staging, backup)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        finally:
            lock.release()
    finally:
        await database.close()
    return backup


def _rounded_up(moment: datetime) -> datetime:
    """To the millisecond, which is what people are shown and type."""
    return moment + timedelta(microseconds=-moment.microsecond % 1000)


async def verify_files(programs: Path, cluster: Path) -> bool:
    """Whether every file is what the manifest says, and the write-ahead log can be read; False where the programs
    cannot tell. Raises `Rejected` (`backup_damaged`), which names files."""
    verifier = programs / "pg_verifybackup"
    if not verifier.is_file():
        return False
    status, said = await run_program([str(verifier), "--quiet", str(cluster)])
    if status != 0:
        complaints = said.splitlines() or [f"pg_verifybackup ended with {status}"]
        lines = [line.removeprefix("pg_verifybackup: ").removeprefix("error: ") for line in complaints]
        more = f"; and {len(lines) - _MOST_NAMED} more" if len(lines) > _MOST_NAMED else ""
        raise Rejected(
            f"{cluster.parent.name} is damaged: {'; '.join(lines[:_MOST_NAMED])}{more}", code="backup_damaged"
        )
    return True


def without_password(url: str) -> tuple[str, str]:
    """An address that may be seen, and its password."""
    parts = urlsplit(url)
    account, at, hosts = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    asked = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(name, value) for name, value in asked if name != "password"])
    found = dict(asked).get("password") or unquote(password)
    return parts._replace(netloc=f"{user}{at}{hosts}", query=query).geturl(), found


async def _copy(programs: Path, url: str, cluster: Path) -> None:
    address, password = without_password(url)
    command = [
        str(programs / "pg_basebackup"),
        *(f"--dbname={address}", "--no-password", f"--pgdata={cluster}", "--format=plain"),
        # With the write-ahead log of the backup itself: it can be restored without the archive.
        *("--wal-method=stream", "--checkpoint=fast", "--manifest-checksums=SHA256"),
        "--no-sync",  # all of it at once, at the end
    ]
    status, said = await run_program(command, {"PGPASSWORD": password} if password else None)
    if status != 0:
        reason = next((line for line in reversed(said.splitlines()) if "error: " in line), said[-300:])
        raise Unavailable(f"pg_basebackup ended with status {status}: {reason}", code="backup_failed")


def _of_manifest(cluster: Path) -> dict[str, Any]:
    """What the files themselves tell of the backup."""
    manifest = json.loads((cluster / "backup_manifest").read_bytes())
    [wal] = manifest["WAL-Ranges"]
    return {
        "bytes": sum(file["Size"] for file in manifest["Files"]),
        "timeline": wal["Timeline"],
        "start": wal["Start-LSN"],
        "end": wal["End-LSN"],
    }


def _require_same_system(repository: Repository, server: tables.Server) -> None:
    """An archive is of one system: segments of two have the same names."""
    for label in repository.labels()[-1:]:
        if repository.read(label).system_identifier != server.system_identifier:
            raise Rejected(
                f"{repository.root} has backups of another database system: choose another directory",
                code="another_system",
            )


def _publish(repository: Repository, staging: Path, backup: Backup) -> None:
    target = repository.folder / backup.label
    if target.exists():
        raise Unavailable(f"there is a backup of this second already: {backup.label}", code="backup_failed")
    (staging / "backup.json").write_text(backup.model_dump_json(indent=2) + "\n")
    sync_tree(staging)
    staging.rename(target)
    sync_directory(repository.folder)
