"""The bundled PostgreSQL: what a start gives, keeps and refuses."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from codeagent.embedded import binaries
from codeagent.embedded.children import run_forked
from codeagent.embedded.postgres import EmbeddedPostgres, PostgresAddress
from codeagent.errors import Rejected, Unavailable
from tests.conftest import unavailable

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does; everyone else is tested by the rest")


def ask(postgres: EmbeddedPostgres, sql: str, address: PostgresAddress | None = None) -> str:
    command = [str(postgres.bin_dir / "psql"), "-XAtq", "-c", sql, (address or postgres.address).url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_first_start_gives_an_empty_database_owned_by_a_role_that_is_no_superuser(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir / "postgres") as postgres:
        who = "SELECT current_user, current_database(), rolsuper FROM pg_roles WHERE rolname = current_user"
        assert ask(postgres, who) == "codeagent|codeagent|f"
        ask(postgres, "CREATE TABLE facts (id bigint PRIMARY KEY)")
        assert ask(postgres, "SHOW server_encoding") == "UTF8"


def test_a_cluster_of_an_earlier_release_gets_the_roles_that_have_come_since(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir / "postgres") as postgres:
        ask(postgres, "DROP ROLE codeagent_service", postgres.superuser_address)
    (state_dir / "postgres" / "roles").unlink()
    for _ in range(2):
        with EmbeddedPostgres(state_dir / "postgres") as postgres:
            taken_on = ask(
                postgres, "SET ROLE codeagent_service; SELECT current_user, pg_has_role('codeagent_edge', 'MEMBER')"
            )
        assert taken_on == "codeagent_service|f"


def test_commits_are_durable_by_default(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        settings = {name: ask(postgres, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")}
    assert set(settings.values()) == {"on"}


def test_only_loopback_is_served_and_only_with_the_right_password(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        assert ask(postgres, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(postgres, "SHOW unix_socket_directories", postgres.superuser_address) == ""
        address = postgres.address
        wrong = address.url.replace(address.password, "wrong")
        command = [str(postgres.bin_dir / "psql"), "-XAtq", "-c", "SELECT 1", wrong]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode != 0
    assert "password authentication failed" in refused.stderr


def test_passwords_and_the_log_are_readable_by_us_alone_and_an_address_does_not_print_its_password(
    data_dir: Path,
) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.address.password not in repr(postgres.address)
        assert postgres.address.password != postgres.superuser_address.password
    for name in ("postgres.password", "codeagent.password", "postgres.log"):
        info = (data_dir / name).stat()
        assert stat.S_IMODE(info.st_mode) == 0o600
        assert info.st_uid == os.geteuid()


def test_a_second_start_is_quick_and_finds_data_password_and_port_again(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as first:
        ask(first, "CREATE TABLE kept AS SELECT 42 AS answer")
        before = first.address
    second = EmbeddedPostgres(data_dir)
    started = time.perf_counter()
    second.start()
    took_seconds = time.perf_counter() - started
    try:
        assert second.address == before
        assert ask(second, "SELECT answer FROM kept") == "42"
        assert took_seconds < 3  # 0.06 s on two idle cores
    finally:
        assert second.stop()


def test_a_port_that_somebody_else_took_meanwhile_is_replaced_by_another(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as first:
        port = first.address.port
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        with EmbeddedPostgres(data_dir) as second:
            assert second.address.port != port
            assert ask(second, "SELECT 1") == "1"


def test_a_port_that_was_asked_for_by_number_is_not_replaced(data_dir: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        postgres = EmbeddedPostgres(data_dir, port=squatter.getsockname()[1])
        with pytest.raises(Unavailable) as refusal:
            postgres.start()
    assert refusal.value.code == "port_taken"
    postgres.start()
    assert postgres.stop()


def test_a_second_owner_of_the_data_directory_is_refused_and_told_who_the_first_is(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as first:
        with pytest.raises(Unavailable) as refusal:
            EmbeddedPostgres(data_dir).start()
        assert refusal.value.code == "data_dir_in_use"
        assert f"process {os.getpid()}" in refusal.value.detail
        assert ask(first, "SELECT 1") == "1"


def test_data_of_another_major_version_is_refused_with_a_way_out(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        pass
    (data_dir / "cluster" / "PG_VERSION").write_text("16\n")
    with pytest.raises(Rejected) as refusal:
        EmbeddedPostgres(data_dir).start()
    assert refusal.value.code == "postgres_major_mismatch"
    assert "PostgreSQL 16" in refusal.value.detail
    assert "CODEAGENT_DATABASE_URL" in refusal.value.detail


def test_without_binaries_for_the_platform_the_error_names_the_setting_to_use(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_package_directory", lambda _name: None)
    with pytest.raises(Rejected, match="CODEAGENT_DATABASE_URL") as refusal:
        EmbeddedPostgres(state_dir / "postgres").start()
    assert refusal.value.code == "embedded_postgres_missing"


def test_what_users_send_does_not_reach_the_log(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        for sql in (
            "SELECT 'classified-1'::int",
            "SELECT * FROM classified_2",
            "DO $$ BEGIN RAISE 'classified-3'; END $$",
        ):
            command = [str(postgres.bin_dir / "psql"), "-XAtq", "-c", sql, postgres.address.url]
            assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0
        log = postgres.log_path.read_text()
    assert "ready to accept connections" in log
    assert "classified" not in log


def test_programs_of_the_machine_can_replace_the_bundled_ones(state_dir: Path) -> None:
    programs = Path("/usr/lib/postgresql/15/bin")
    if not programs.is_dir():
        unavailable(f"PostgreSQL 15 in {programs}")
    with EmbeddedPostgres(state_dir / "postgres", programs) as postgres:
        assert ask(postgres, "SHOW server_version").startswith("15.")
        assert ask(postgres, "SELECT datcollate FROM pg_database WHERE datname = 'codeagent'") == "C.UTF-8"


@as_root
def test_root_runs_it_as_an_unprivileged_account_and_changes_nothing_on_the_host(data_dir: Path) -> None:
    accounts = Path("/etc/passwd").read_bytes()
    with EmbeddedPostgres(data_dir) as postgres:
        owner = Path(f"/proc/{postgres.pid}").stat().st_uid
        status = Path(f"/proc/{postgres.pid}/status").read_text()
    assert owner == 60917
    assert "Groups:\t \n" in status
    assert "NoNewPrivs:\t1" in status
    assert Path("/etc/passwd").read_bytes() == accounts


@as_root
def test_root_with_binaries_in_a_private_directory_runs_a_public_copy(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = binaries._package_directory("embedded_postgres")
    assert original is not None
    private = state_dir / "private"
    private.mkdir(mode=0o700)
    for package in original.parent.glob("embedded_postgres*"):
        shutil.copytree(package, private / package.name, symlinks=True)
    monkeypatch.setattr(binaries, "_package_directory", lambda _name: private / "embedded_postgres")
    for _ in range(2):
        with EmbeddedPostgres(state_dir / "postgres") as postgres:
            assert postgres.bin_dir.is_relative_to(state_dir / "runtime")
            assert ask(postgres, "SELECT 1") == "1"
    assert [path.name.split("-")[0] for path in (state_dir / "runtime").iterdir()] == ["postgresql"]


@as_root
def test_root_with_an_unreachable_data_directory_is_told_which_directory_is_in_the_way(state_dir: Path) -> None:
    private = state_dir / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(Rejected) as refusal:
        EmbeddedPostgres(private / "postgres").start()
    assert refusal.value.code == "data_dir_unreachable"
    assert str(private) in refusal.value.detail


@as_root
def test_a_normal_user_runs_it_as_himself(state_dir: Path) -> None:
    os.chown(state_dir, 65534, 65534)
    EmbeddedPostgres(state_dir / "warm-up").stop()

    def as_nobody() -> int:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        with EmbeddedPostgres(state_dir / "postgres") as postgres:
            assert Path(f"/proc/{postgres.pid}").stat().st_uid == 65534
            assert ask(postgres, "SELECT current_user") == "codeagent"
        with EmbeddedPostgres(state_dir / "postgres") as postgres:
            assert ask(postgres, "SELECT 1") == "1"
        return 7

    assert run_forked(as_nobody, 30) == 7
    assert (state_dir / "postgres").stat().st_uid == 65534
