"""What a base backup leaves, whom it tells the password, and what an archive refuses."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codeagent.backups.archiving import archive_settings
from codeagent.backups.repository import Backup, Layout, Repository
from codeagent.backups.taking import Source, take_backup
from codeagent.cli.backing_up import remove_old
from codeagent.embedded.accounts import POSTGRES_UID, service_account
from codeagent.embedded.binaries import postgres_programs
from codeagent.embedded.postgres import EmbeddedPostgres
from codeagent.embedded.spawning import wait_until
from codeagent.errors import Rejected, Unavailable
from tests.integration.backups.story import ask, scratch


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    directory = scratch()
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[EmbeddedPostgres]:
    """A server that archives into `state`/backups, with nothing of ours in its database yet."""
    archiving = archive_settings(state / "backups", service_account(POSTGRES_UID, state / "postgres" / "cluster"))
    with EmbeddedPostgres(state / "postgres", settings={**archiving, "fsync": "off"}) as running:
        yield running


@pytest.fixture
def source(server: EmbeddedPostgres, state: Path) -> Source:
    return Source(
        server.superuser_address.url, Layout.EMBEDDED, None, lambda: postgres_programs(state / "runtime", None)
    )


@pytest.fixture
def folder(state: Path) -> Iterator[Path]:
    """A directory of the test's own, where a backup costs no disk."""
    made = state / "folder"
    made.mkdir()
    yield made
    shutil.rmtree(made)


def instead_of_pg_basebackup(folder: Path, script: str) -> Path:
    """A directory with a program of that name, of the server's version, that does something else."""
    folder.mkdir()
    program = folder / "pg_basebackup"
    program.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "pg_basebackup (PostgreSQL) 18.6" && exit 0\n{script}\n')
    program.chmod(0o755)
    return folder


def test_a_backup_is_complete_when_it_has_its_name_and_nobody_elses_to_read(source: Source, folder: Path) -> None:
    repository = Repository(folder / "kept")
    (repository.folder / ".taking-dead").mkdir(parents=True)
    before = datetime.now(UTC)
    backup = asyncio.run(take_backup(repository, source))
    assert repository.labels() == [backup.label]
    assert repository.read(backup.label) == backup
    assert before <= backup.taken_at <= datetime.now(UTC) + timedelta(milliseconds=1)
    assert (backup.major, backup.is_verified, backup.schema_version, backup.outside) == (18, True, None, {})
    assert [path.name for path in repository.folder.iterdir()] == [backup.label]
    assert (repository.folder.stat().st_mode & 0o077, (repository.folder / backup.label).stat().st_mode & 0o077) == (
        0,
        0,
    )


def test_the_password_is_on_no_command_line_and_what_fails_leaves_nothing(
    server: EmbeddedPostgres, source: Source, folder: Path
) -> None:
    script = f'echo "$@" > {folder}/words; printenv PGPASSWORD > {folder}/password; echo "error: it broke"; exit 3'
    programs = instead_of_pg_basebackup(folder / "bin", script)
    repository = Repository(folder / "kept")
    with pytest.raises(Unavailable, match="pg_basebackup ended with status 3: error: it broke") as failed:
        asyncio.run(take_backup(repository, Source(source.url, source.layout, programs, source.bundled)))
    assert failed.value.code == "backup_failed"
    password = server.superuser_address.password
    assert password not in (folder / "words").read_text()
    assert (folder / "password").read_text().strip() == password
    assert list(repository.folder.iterdir()) == []


def test_a_copy_that_is_not_what_was_read_is_no_backup(source: Source, folder: Path) -> None:
    real = source.bundled()
    script = f'{real}/pg_basebackup "$@" && for each in "$@"; do case $each in --pgdata=*) echo x >> "${{each#*=}}/PG_VERSION";; esac; done'
    programs = instead_of_pg_basebackup(folder / "bin", script)
    for name in ("pg_verifybackup", "pg_waldump"):
        (programs / name).symlink_to(real / name)
    repository = Repository(folder / "kept")
    with pytest.raises(Rejected, match=r'"PG_VERSION" has size 5') as refused:
        asyncio.run(take_backup(repository, Source(source.url, source.layout, programs, source.bundled)))
    assert (refused.value.code, repository.labels()) == ("backup_damaged", [])


def test_one_directory_is_for_one_installation(source: Source, folder: Path) -> None:
    repository = Repository(folder / "kept")
    record(repository, "20260101T000000Z", system_identifier="1")
    with pytest.raises(Rejected) as refused:
        asyncio.run(take_backup(repository, source))
    assert refused.value.code == "another_system"


def test_the_archive_never_puts_a_segment_in_the_place_of_another(server: EmbeddedPostgres, state: Path) -> None:
    wal, address = state / "backups" / "wal", server.superuser_address.url

    def switch() -> str:
        """Ends the segment at work, and returns its name."""
        name = asyncio.run(ask(address, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"))
        asyncio.run(ask(address, "SELECT pg_create_restore_point('x'), pg_switch_wal()"))
        return str(name)

    first = switch()
    assert wait_until((wal / first).exists, 20)
    taken = wal / f"{first[:-8]}{int(first[-8:], 16) + 1:08X}"
    another = b"x" * (16 << 20)
    taken.write_bytes(another)
    os.chown(taken, wal.stat().st_uid, wal.stat().st_gid)  # nothing but the archiver itself keeps it from writing
    assert switch() == taken.name
    failures = "SELECT count(*) FROM pg_stat_archiver WHERE last_failed_wal = '{}'"
    assert wait_until(lambda: asyncio.run(ask(address, failures.format(taken.name))) == 1, 20, interval_seconds=0.1)
    assert taken.read_bytes() == another


def record(repository: Repository, label: str, **changed: object) -> None:
    """A backup of which nothing but the record is there."""
    told = {
        "label": label,
        "layout": Layout.SERVER,
        "release": "0",
        "taken_at": datetime.strptime(label, "%Y%m%dT%H%M%S%z"),
        "bytes": 1,
        "postgres": "18.6",
        "major": 18,
        "system_identifier": "1",
        "segment_bytes": 1 << 20,
        "timeline": 1,
        "start": "0/300028",
        "end": "0/300120",
        "database": "codeagent",
        "superuser": "postgres",
        "schema_version": None,
        "last_event": None,
        "last_event_at": None,
        "entries": 0,
        "outside": {},
        "is_verified": True,
    }
    repository.record(label).parent.mkdir(parents=True)
    repository.record(label).write_text(Backup.model_validate(told | changed).model_dump_json())


def test_old_backups_go_with_what_only_they_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = Repository(tmp_path)
    fresh = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    record(repository, "20250101T000000Z")
    record(repository, "20250201T000000Z", start="0/500028", end="0/500120")
    record(repository, fresh, start="0/700028", end="0/700120")
    repository.wal.mkdir()
    for number in range(3, 9):
        (repository.wal / f"0000000100000000{number:08X}").write_bytes(bytes(1 << 20))
    (repository.wal / "00000002.history").write_text("1\t0/700000\tx\n")
    assert remove_old(tmp_path, 30, 2) == 0
    assert repository.labels() == ["20250201T000000Z", fresh]
    assert sorted(path.name[-1] for path in repository.wal.iterdir()) == ["5", "6", "7", "8", "y"]
    assert remove_old(tmp_path, 30, 1) == 0
    assert remove_old(tmp_path, 30, 1) == 0, "the newest stays"
    assert capsys.readouterr().out.splitlines()[-1] == "removed 0 backups and 0 segments"
    assert repository.labels() == [fresh]
    assert sorted(path.name[-1] for path in repository.wal.iterdir()) == ["7", "8", "y"]
