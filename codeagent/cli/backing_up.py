"""What `codeagent db backup`, `list` and `prune` do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from codeagent.backups.archiving import archive_settings
from codeagent.backups.programs import find_programs
from codeagent.backups.pruning import prune
from codeagent.backups.reach import last_transaction
from codeagent.backups.repository import Backup, Layout, Repository
from codeagent.backups.taking import Source, take_backup
from codeagent.cli.connected import directory
from codeagent.cli.operate import FAILED, USAGE, load_settings, say
from codeagent.cli.secrets import database_url
from codeagent.cli.up_settings import DATABASE_VARIABLES, is_named
from codeagent.clock import now
from codeagent.embedded.accounts import POSTGRES_UID, service_account
from codeagent.embedded.binaries import postgres_programs
from codeagent.embedded.postgres import running_address
from codeagent.embedded.postgres_cluster import APPLICATION, Cluster
from codeagent.errors import CodeAgentError, InvalidInput, Rejected
from codeagent.settings import Misconfigured, Settings

_NOT_IN_IT = "not in it: keys (KEK, AUDIT_SIGNING_KEY, SUBJECT_KEYS, ...), artifacts, checkpoints; see docs/backups.md"


def told(action: Coroutine[Any, Any, int]) -> int:
    """Runs a command to its exit status. What ends it is a line with a stable code."""
    try:
        return asyncio.run(action)
    except CodeAgentError as error:
        sys.stderr.write(f"codeagent: {error.code}: {error.detail}\n")
        return USAGE if isinstance(error, Misconfigured | InvalidInput) else FAILED
    except OSError as error:
        sys.stderr.write(f"codeagent: io_error: {error.filename or 'a file'}: {error.strerror or error}\n")
        return FAILED


def archiving(settings: Settings, data_dir: Path) -> dict[str, str]:
    """What the PostgreSQL of a data directory is told of archiving: nothing without a directory for it."""
    if settings.backup_dir is None:
        return {}
    root = settings.backup_dir.absolute()
    return archive_settings(root, service_account(POSTGRES_UID, Cluster(data_dir / "postgres").directory))


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def moment(when: datetime | None) -> str:
    """To the millisecond before, so that one who types it gets what is up to there."""
    return "-" if when is None else f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03}Z"


def back_up(root: Path, data_dir: Path | None, bin_dir: Path | None) -> int:
    async def take() -> int:
        backup = await take_backup(Repository(root), await _source(data_dir, bin_dir))
        say(
            f"backup {backup.label}: {size(backup.bytes)}, PostgreSQL {backup.postgres}, schema "
            f"{backup.schema_version}, last event {backup.last_event or '-'} of {moment(backup.last_event_at)}"
        )
        say("verified" if backup.is_verified else "NOT verified: there is no pg_verifybackup beside pg_basebackup")
        say(_NOT_IN_IT)
        for name, path in backup.outside.items():
            say(f"not in it: {path} ({name})")
        return 0

    return told(take())


async def _source(data_dir: Path | None, bin_dir: Path | None) -> Source:
    """The running database that is meant: that of a data directory, else the one that the settings name."""
    bundled = partial(postgres_programs, directory(data_dir) / "runtime", None)
    if data_dir is not None or not is_named(DATABASE_VARIABLES):
        root = directory(data_dir) / "postgres"
        if Cluster(root).directory.exists():
            address = running_address(root, APPLICATION)
            return Source(address.url, Layout.EMBEDDED, bin_dir, bundled)
    return Source(await database_url(load_settings(data_dir)), Layout.SERVER, bin_dir, bundled)


def show(root: Path, bin_dir: Path | None) -> int:
    async def list_them() -> int:
        repository = Repository(root)
        say(f"{'backup':18}{'size':>9}  {'PostgreSQL':11}{'schema':8}{'timeline':9}{'restorable from':26}to")
        complaints: list[str] = []
        for label in repository.labels():
            try:
                await _tell(repository, repository.read(label), bin_dir, complaints.append)
            except Rejected as error:
                complaints.append(f"{error.code}: {error.detail}")
        if not repository.labels():
            complaints.append(f"backup_not_found: there is no backup in {root}")
        for complaint in complaints:
            sys.stderr.write(f"codeagent: {complaint}\n")
        return FAILED if complaints else 0

    return told(list_them())


async def _tell(repository: Repository, backup: Backup, bin_dir: Path | None, complain: Callable[[str], None]) -> None:
    """A line for each timeline that the backup leads to."""
    bundled = partial(postgres_programs, directory(None) / "runtime", None)
    try:
        programs = find_programs("pg_waldump", backup.major, bin_dir, bundled)
    except Rejected:
        programs = None
    for number, timeline in sorted(repository.timelines(backup).items()):
        coverage = repository.coverage(backup, timeline)
        last = None if programs is None else await last_transaction(repository, backup, timeline, coverage, programs)
        reach = "unknown" if programs is None else moment(max(last or backup.taken_at, backup.taken_at))
        say(
            f"{backup.label:18}{size(backup.bytes):>9}  {backup.postgres:11}{backup.schema_version or '-':8}{number:<9}"
            f"{moment(backup.taken_at):26}{reach}"
        )
        if coverage.beyond:
            missing = coverage.missing.name(backup.segment_bytes)
            complain(f"wal_missing: {missing} is not in {repository.wal}, the {coverage.beyond} after it are of no use")
    if not backup.is_verified:
        complain(f"backup_not_verified: {backup.label} was not verified when it was taken")


def remove_old(root: Path, days: int, keep: int) -> int:
    async def remove() -> int:
        pruned = prune(Repository(root), now() - timedelta(days=days), keep)
        say(f"removed {len(pruned.labels)} backups and {pruned.segments} segments")
        for label in pruned.labels:
            say(f"  {label}")
        return 0

    return told(remove())
