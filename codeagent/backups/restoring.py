"""Restores a backup into a new directory, to a moment or to the end of what was archived."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from codeagent.backups import tables
from codeagent.backups.programs import find_programs, run_program
from codeagent.backups.recovery import RecoveringServer, Replay, Replayed
from codeagent.backups.repository import Backup, Layout, Repository, chosen
from codeagent.backups.taking import verify_files
from codeagent.backups.wal import Coverage, Timeline
from codeagent.embedded.accounts import (
    POSTGRES_UID,
    Account,
    account_of,
    first_unreadable,
    require_reachable,
    service_account,
)
from codeagent.embedded.directories import make_directory, sync_directory, sync_tree, write_atomically
from codeagent.embedded.postgres_cluster import APPLICATION, SUPERUSER, Cluster
from codeagent.errors import Rejected, Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.migrations import HEAD

UNFINISHED = "restore-is-not-finished"
_QUERY_SECONDS = 3600.0
"""Bound of one query; the longest sorts the index of all streams."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to restore. `at` None is everything; `incomplete` puts up with an archive that has a hole, or is damaged."""

    target: Path
    at: datetime | None = None
    label: str | None = None
    timeline: int | None = None
    incomplete: bool = False
    bin_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A restore that can be done, as far as one can know beforehand."""

    backup: Backup
    timeline: Timeline
    coverage: Coverage
    cluster: Path
    account: Account | None
    programs: Path


@dataclass(frozen=True, slots=True)
class Restored:
    """A database that is restored and at work for as long as it is looked at. `unused` is how many archived segments
    were not replayed, for want of one before them or because one is damaged."""

    plan: Plan
    replayed: Replayed
    unused: int
    database: Database


def plan_restore(repository: Repository, wanted: Wanted, bundled: Callable[[Account | None], Path]) -> Plan:
    """Changes nothing. Raises `Rejected`: `backup_not_found`, `before_first_backup`, `timeline_unknown`,
    `target_not_empty`, `schema_newer`, `wal_missing`, `wal_unreadable`, `programs_missing`."""
    _require_empty(wanted.target)
    backup, timeline = chosen(repository, wanted.label, wanted.at, wanted.timeline)
    require_known_schema(backup.schema_version)
    coverage = repository.coverage(backup, timeline)
    if coverage.beyond and wanted.at is None and not wanted.incomplete:
        raise Rejected(_hole(backup, coverage), code="wal_missing")
    embedded = backup.layout is Layout.EMBEDDED
    cluster = Cluster(wanted.target / "postgres").directory if embedded else wanted.target
    account = _account(backup.layout, wanted.target)
    require_reachable(cluster, account)
    _require_readable(repository.wal, account)
    programs = find_programs("postgres", backup.major, wanted.bin_dir, lambda: bundled(account), account)
    return Plan(backup, timeline, coverage, cluster, account, programs)


@asynccontextmanager
async def restored(repository: Repository, wanted: Wanted, plan: Plan) -> AsyncIterator[Restored]:
    """The database as it was, to be looked at; after that it is shut down, and its directory complete.

    Raises `Rejected`: `backup_damaged`, `wal_ends_before`, `wal_missing`, `wal_damaged`; `Unavailable`. What fails
    leaves nothing in the directory, and whoever looks at it breaks nothing.
    """
    backup = plan.backup
    files = repository.files(backup.label)
    await verify_files(plan.programs, files)
    server = RecoveringServer(plan.cluster, plan.programs, plan.account, backup.superuser)
    database = Database(server.url(backup.database), connections=2, timeout_seconds=_QUERY_SECONDS)
    try:
        await _bring(files, wanted.target, plan)
        replayed = await _replayed(server, repository, wanted, plan)
        unused = _unused(plan, replayed) if wanted.at is None else 0
        if (unused or replayed.damage) and wanted.at is None and not wanted.incomplete:
            raise Rejected(_damage(plan, replayed, unused), code="wal_damaged")
        if backup.layout is Layout.EMBEDDED:
            await _new_passwords(database, wanted.target)
    except BaseException:
        await database.close()
        server.kill()
        _remove_content(wanted.target)
        raise
    try:
        yield Restored(plan, replayed, unused, database)
    finally:
        await database.close()
        try:
            await server.stop()
        finally:
            server.kill()
        await asyncio.to_thread(sync_tree, wanted.target)
        (wanted.target / UNFINISHED).unlink()
        sync_directory(wanted.target)


def _account(layout: Layout, target: Path) -> Account | None:
    """Who PostgreSQL is to run as: whose the directory is, else whom the distribution or `codeagent up` has for it."""
    account = service_account(POSTGRES_UID, target)
    if account is None or layout is Layout.EMBEDDED or (target.exists() and target.stat().st_uid != 0):
        return account
    return account_of("postgres") or account


def require_known_schema(version: str | None) -> None:
    """Raises `Rejected` (`schema_newer`) for a database that a later release has migrated."""
    if version is not None and version > HEAD:
        raise Rejected(
            f"the database has schema {version}, and this release knows {HEAD}: use the release that made it",
            code="schema_newer",
        )


def _require_empty(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir() or (names := sorted(path.name for path in target.iterdir())):
        why = "is no directory" if not target.is_dir() else f"is not empty, it has {names[0]}"
        if target.is_dir() and UNFINISHED in names:
            why = "has what a restore left that was ended: remove it"
        raise Rejected(f"{target} {why}; a backup is restored into a new directory alone", code="target_not_empty")


def _require_readable(archive: Path, account: Account | None) -> None:
    """A segment that cannot be read would pass for the end of the archive. Raises `Rejected` (`wal_unreadable`)."""
    files = [archive, *archive.iterdir()] if archive.is_dir() else []
    if account is None:
        closed = next((path for path in files if not os.access(path, os.R_OK)), None)
    else:
        closed = first_unreadable(files, account)
    if closed is not None:
        uid = os.geteuid() if account is None else account.uid
        raise Rejected(f"user id {uid}, which PostgreSQL runs as, cannot read {closed}", code="wal_unreadable")


async def _replayed(server: RecoveringServer, repository: Repository, wanted: Wanted, plan: Plan) -> Replayed:
    try:
        return await server.replay(Replay(repository.wal, plan.timeline.number, wanted.at))
    except Rejected as error:
        if error.code == "wal_ends_before" and plan.coverage.beyond:
            raise Rejected(_hole(plan.backup, plan.coverage), code="wal_missing") from None
        raise


async def _bring(files: Path, target: Path, plan: Plan) -> None:
    """The files of the backup, as PostgreSQL wants them. Until the restore is finished the directory says so."""
    make_directory(target)
    (target / UNFINISHED).touch()
    make_directory(plan.cluster)
    status, said = await run_program(["cp", "-pR", f"{files}/.", str(plan.cluster)])
    if status != 0:
        raise Unavailable(f"the backup cannot be copied: {said[-300:]}", code="recovery_failed")
    await asyncio.to_thread(_hand_over, target, plan)


def _hand_over(target: Path, plan: Plan) -> None:
    (plan.cluster / "backup_manifest").unlink()
    (plan.cluster / "standby.signal").unlink(missing_ok=True)  # of one that was taken from a standby
    plan.cluster.chmod(0o700)
    if plan.account is not None:
        for path in (plan.cluster, *plan.cluster.rglob("*")):
            os.chown(path, plan.account.uid, plan.account.gid, follow_symlinks=False)
    sync_directory(target)


async def _new_passwords(database: Database, target: Path) -> None:
    """The files with the passwords of `codeagent up` are in no backup: it gets others."""
    passwords = {role: secrets.token_hex(24) for role in (SUPERUSER, APPLICATION)}
    await tables.set_passwords(database, passwords)
    for role, password in passwords.items():
        write_atomically(target / "postgres" / f"{role}.password", password + "\n", durable=True)


def _remove_content(target: Path) -> None:
    for path in target.iterdir() if target.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _unused(plan: Plan, replayed: Replayed) -> int:
    """How many segments that are there were not replayed, whatever the server made of them."""
    last = plan.coverage.last
    return plan.coverage.beyond + (0 if last is None else max(last.number - _reached(plan, replayed), 0))


def _reached(plan: Plan, replayed: Replayed) -> int:
    """The number of the segment of the last record."""
    return plan.backup.first_segment if replayed.position is None else replayed.position // plan.backup.segment_bytes


def _hole(backup: Backup, coverage: Coverage) -> str:
    return (
        f"segment {coverage.missing.name(backup.segment_bytes)} is missing in the archive, or not whole: the "
        f"{coverage.beyond} after it cannot be replayed. Find it, or restore what is before it: --incomplete, or --at"
    )


def _damage(plan: Plan, replayed: Replayed, unused: int) -> str:
    segment = next(plan.timeline.holders(_reached(plan, replayed), plan.backup.segment_bytes))
    name = segment.name(plan.backup.segment_bytes)
    return (
        f"the archive cannot be read to its end: segment {name}, or the one after it, is damaged "
        f"({replayed.damage or 'it ends early'}). Its last good transaction is of {replayed.last or 'the backup'}, and "
        f"{unused} more segments would not be replayed. Find a good copy, or restore what is before it: --incomplete, "
        "or --at"
    )
