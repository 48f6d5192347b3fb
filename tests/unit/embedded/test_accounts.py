"""Which account a server runs as, and whether it can reach what it needs."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from codeagent.embedded import accounts
from codeagent.embedded.accounts import (
    POSTGRES_UID,
    Account,
    first_barrier,
    may_run,
    named_account,
    require_reachable,
    service_account,
)
from codeagent.errors import Rejected

STRANGER = Account(61234, 61234)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A directory every part of whose path lets everybody pass, as far as this test can arrange it."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    return tmp_path


def test_a_normal_user_stays_himself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert service_account(POSTGRES_UID, tmp_path) is None
    assert named_account(None) is None


def test_root_becomes_the_servers_own_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert service_account(POSTGRES_UID, tmp_path / "not there yet") == Account(POSTGRES_UID, POSTGRES_UID)


def test_data_that_has_an_owner_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    class Owned:
        def exists(self) -> bool:
            return True

        def stat(self) -> os.stat_result:
            return os.stat_result((0o40700, 0, 0, 0, 1234, 1235, 0, 0, 0, 0))

    assert service_account(POSTGRES_UID, Owned()) == Account(1234, 1235)  # type: ignore[arg-type]


def test_in_a_container_without_that_id_it_is_nobody_and_without_any_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(accounts, "_is_mapped", lambda number, _kind: number == 65534)
    assert service_account(POSTGRES_UID, tmp_path / "none") == Account(65534, 65534)
    monkeypatch.setattr(accounts, "_is_mapped", lambda number, _kind: number == 0)
    with pytest.raises(Rejected, match="CODEAGENT_DATABASE_URL") as refusal:
        service_account(POSTGRES_UID, tmp_path / "none")
    assert refusal.value.code == "no_unprivileged_account"


def test_initdb_gets_an_account_with_a_name() -> None:
    chosen = named_account(STRANGER)
    assert chosen is not None
    assert pwd.getpwuid(chosen.uid).pw_uid != 0


def test_the_outermost_closed_directory_is_named(public: Path) -> None:
    inner = public / "open" / "closed" / "below"
    inner.mkdir(parents=True)
    (public / "open" / "closed").chmod(0o700)
    if first_barrier(public / "x", STRANGER) is not None:
        pytest.skip("this machine's temporary directory itself is closed")
    assert first_barrier(inner / "file", STRANGER) == public / "open" / "closed"
    assert first_barrier(inner / "file", None) is None
    with pytest.raises(Rejected, match="/var/lib/codeagent"):
        require_reachable(inner / "file", STRANGER)


def test_its_owner_passes_a_directory_that_is_closed_to_others(public: Path) -> None:
    closed = public / "closed"
    closed.mkdir(mode=0o700)
    if first_barrier(public / "x", STRANGER) is not None:
        pytest.skip("this machine's temporary directory itself is closed")
    assert first_barrier(closed / "file", Account(os.geteuid(), os.getegid())) is None


def test_a_program_can_be_run_if_it_is_executable_and_within_reach(public: Path) -> None:
    if first_barrier(public / "x", STRANGER) is not None:
        pytest.skip("this machine's temporary directory itself is closed")
    program = public / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    assert not may_run(program, STRANGER)
    program.chmod(0o755)
    assert may_run(program, STRANGER)
    public.chmod(0o700)
    assert not may_run(program, STRANGER)
