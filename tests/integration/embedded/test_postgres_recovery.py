"""The bundled PostgreSQL after something died: no process stays behind, no commit is lost, the next start works."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from codeagent.embedded import postgres as postgres_module
from codeagent.embedded.postgres import EmbeddedPostgres
from codeagent.embedded.spawning import wait_until
from tests.integration.embedded.harness import Script, all_gone, is_running, with_descendants
from tests.integration.embedded.test_postgres import ask

OWNER = """
    from pathlib import Path
    import time
    from codeagent.embedded.postgres import EmbeddedPostgres
    postgres = EmbeddedPostgres(Path(sys.argv[1]))
    postgres.start()
    report({"pid": postgres.pid, "url": postgres.address.url})
    time.sleep(600)
"""


def test_a_killed_parent_leaves_no_server_behind_and_its_commits_are_there_at_the_next_start(state_dir: Path) -> None:
    with Script(OWNER, state_dir / "postgres") as script:
        pid = script.next_report()["pid"]
        processes = with_descendants(pid)
        with_client = EmbeddedPostgres(state_dir / "other")
        with_client.start()
        url = (state_dir / "postgres" / "codeagent.password").read_text().strip()
        port = (state_dir / "postgres" / "port").read_text().strip()
        command = [
            str(with_client.bin_dir / "psql"),
            f"postgresql://codeagent:{url}@127.0.0.1:{port}/codeagent",
            "-XAtq",
        ]
        # A connected client must not be able to hold the shutdown up.
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"CREATE TABLE kept AS SELECT 1 AS one;\nSELECT 'done';\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"done\n"
        script.process.kill()
        assert all_gone(processes, within_seconds=5)
        client.communicate(timeout=10)
        with_client.stop()
    with EmbeddedPostgres(state_dir / "postgres") as postgres:
        assert ask(postgres, "SELECT one FROM kept") == "1"


@pytest.mark.parametrize("reached", ["cluster", "cluster/PG_VERSION", "cluster/global/pg_control"])
def test_a_parent_killed_while_it_creates_the_data_directory_does_no_harm(state_dir: Path, reached: str) -> None:
    root = state_dir / "postgres"
    with Script(OWNER, root) as script:
        assert wait_until(lambda: any(root.glob(f".creating-*/{reached}")), 20)
        script.process.kill()
        script.wait(5)
    assert list(root.glob(".creating-*"))
    with EmbeddedPostgres(root) as postgres:
        assert ask(postgres, "SELECT 1") == "1"
    assert not list(root.glob(".creating-*"))


def test_a_killed_server_is_seen_and_comes_back_on_its_port_with_every_commit(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        ask(postgres, "CREATE TABLE kept AS SELECT 1 AS one")
        before, killed = postgres.address, postgres.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: postgres.fault() is not None, 5)
        postgres.restart()
        assert postgres.fault() is None
        assert postgres.address == before
        assert ask(postgres, "SELECT one FROM kept") == "1"


def test_a_server_that_outlived_its_owner_is_stopped_and_replaced(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        port, program = postgres.address.port, postgres.bin_dir / "postgres"
        owner = (data_dir / "cluster").stat()
    switch = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    cluster = data_dir / "cluster"
    survivor = subprocess.Popen(
        [str(program), "-D", str(cluster), "-p", str(port)], stderr=subprocess.DEVNULL, cwd="/", **switch
    )
    pidfile = cluster / "postmaster.pid"
    while not (pidfile.exists() and "ready" in pidfile.read_text()):
        time.sleep(0.01)
    with EmbeddedPostgres(data_dir) as postgres:
        assert survivor.wait(5) == 0
        assert ask(postgres, "SELECT 1") == "1"


def test_a_stale_lock_file_naming_an_innocent_process_is_ignored_and_the_process_left_alone(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        pass
    cluster = data_dir / "cluster"
    owner = cluster.stat()
    switch = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    innocent = subprocess.Popen(["sleep", "60"], **switch)
    try:
        # PostgreSQL itself would refuse: a process of its own user has that number.
        (cluster / "postmaster.pid").write_text(f"{innocent.pid}\n{cluster}\n1\n5432\n\n127.0.0.1\n  1  1\nready   \n")
        os.chown(cluster / "postmaster.pid", owner.st_uid, owner.st_gid)
        with EmbeddedPostgres(data_dir) as postgres:
            assert ask(postgres, "SELECT 1") == "1"
        assert is_running(innocent.pid)
    finally:
        innocent.kill()
        innocent.wait()


def test_a_stop_that_takes_too_long_is_enforced_and_recovered_from(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        ask(postgres, "CREATE TABLE kept AS SELECT 1 AS one")
        pid = postgres.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert not postgres.stop(timeout_seconds=0.2)
        assert all_gone([pid], within_seconds=1)
        postgres.start()
        assert ask(postgres, "SELECT one FROM kept") == "1"


def test_a_start_can_be_abandoned(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = EmbeddedPostgres(data_dir)
    monkeypatch.setattr(EmbeddedPostgres, "_is_ready", lambda _self: False)
    began = time.monotonic()
    with pytest.raises(postgres_module.Unavailable, match="give up"):
        postgres.start(abort=lambda: time.monotonic() > began + 1.5)
    assert postgres.pid is None
    monkeypatch.undo()
    postgres.start()
    assert postgres.stop()
