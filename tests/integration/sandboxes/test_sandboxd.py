"""The helper as a process of its own: who may ask it, what it knows, and what is left when either side is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from codeagent.cli import sandbox_machine
from codeagent.sandboxes.cgroup_layout import find_trees
from codeagent.sandboxes.machine import group_name
from codeagent.sandboxes.notes import Notes
from codeagent.sandboxes.protocol import ExecSpec, IsolationLevel, Reason, SandboxFailure, SandboxUnavailable
from codeagent.sandboxes.sandboxd.client import RemoteDriver
from codeagent.sandboxes.survey import survey
from codeagent.workers.held import HeldWorkspaces, Place
from codeagent.workers.standing import Standing
from tests.integration.sandboxes.helper import RunningHelper, running_helper
from tests.integration.sandboxes.support import LIMITS, archive, run

WORKER_UID, STRANGER_UID = 60_919, 60_920
SLOTS = range(200_000, 200_256)
WORKER = """
import asyncio, sys
from pathlib import Path
from codeagent.embedded.accounts import Account
from codeagent.embedded.demotion import Demotion
from codeagent.sandboxes.protocol import ExecSpec, IsolationLevel
from codeagent.sandboxes.sandboxd.client import RemoteDriver
from tests.integration.sandboxes.support import LIMITS

async def tell(_stream, piece):
    print(piece.decode(), end="", flush=True)

async def main():
    Demotion(Account(60_919, 60_919), reads_all=True).apply()
    driver = RemoteDriver(Path(sys.argv[1]), IsolationLevel.KERNEL)
    workspaces = [await driver.open(f"doomed {i}", Path(sys.argv[2]), b"", LIMITS) for i in range(2)]
    script = "setsid sleep 600 & echo running; sleep 600"
    await asyncio.gather(*(driver.run(w, ExecSpec(("sh", "-c", script), limits=LIMITS), tell) for w in workspaces))

asyncio.run(main())
"""
GREETED = """
import socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(sys.argv[1])
print(len(connection.recv(9999)) > 0)
"""
SEEN_FROM_INSIDE = """
import os, socket, sys
found = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"usr", "proc", "sys"}  # where nothing of the helper is
    found += [os.path.join(folder, name) for name in names if name == "sandboxd.sock"]
try:
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(sys.argv[1])
    found.append("connected")
except OSError:
    pass
print(found)
"""


@pytest.fixture(scope="module")
def _helper(state_dir: Path) -> Iterator[RunningHelper]:
    with running_helper(state_dir) as running:
        yield running


@pytest.fixture
def helper(_helper: RunningHelper) -> RunningHelper:
    """Running, and letting us in, whatever a test before has done to it."""
    if _helper.process is None or _helper.process.poll() is not None or _helper.uid != os.geteuid():
        restart(_helper, os.geteuid())
    return _helper


def restart(helper: RunningHelper, uid: int) -> None:
    if helper.process is not None and helper.process.poll() is None:
        helper.stop()
    helper.uid = uid
    helper.start()


@pytest.fixture
def remote(helper: RunningHelper) -> RemoteDriver:
    return RemoteDriver(helper.socket, IsolationLevel.KERNEL, patience_seconds=0.2)


def groups_of(state_dir: Path) -> list[Path]:
    base = find_trees().below(group_name(state_dir))
    return [child for directory in base.directories for child in directory.glob("*") if child.is_dir()]


def processes_in(helper: RunningHelper) -> set[int]:
    """Those of its sandboxes."""
    found = set()
    for group in groups_of(helper.state_dir):
        with suppress(OSError):
            found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
    return found


def left_of(helper: RunningHelper) -> list[object]:
    return [*processes_in(helper), *groups_of(helper.state_dir), *(helper.state_dir / "workspaces").iterdir()]


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


async def test_a_killed_worker_leaves_no_process_no_group_and_no_workspace(
    helper: RunningHelper, tmp_path: Path
) -> None:
    restart(helper, WORKER_UID)
    source = helper.directory / "source.tar.gz"
    source.write_bytes(archive(tmp_path).read_bytes())
    source.chmod(0o644)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(helper.socket), str(source)],
        stdout=subprocess.PIPE,
        cwd=Path.cwd(),
    )
    assert worker.stdout is not None
    for _ in range(2):
        assert await asyncio.to_thread(worker.stdout.readline) == b"running\n"
    assert len(processes_in(helper)) >= 4
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    await until(lambda: left_of(helper) == [], "nothing left")
    assert helper.process is not None
    assert helper.process.poll() is None


async def test_with_the_helper_die_its_sandboxes_and_the_worker_finds_the_next_one(
    helper: RunningHelper, remote: RemoteDriver, tmp_path: Path
) -> None:
    workspace = await remote.open("doomed", archive(tmp_path), b"", LIMITS)
    began = asyncio.Event()

    async def sink(_stream: str, _piece: bytes) -> None:
        began.set()

    script = ("sh", "-c", "setsid sleep 600 & echo begun; sleep 600")
    running = asyncio.ensure_future(remote.run(workspace, ExecSpec(script, limits=LIMITS), sink))
    await began.wait()
    helper.stop(signal.SIGKILL)
    with pytest.raises(SandboxFailure) as caught:
        await running
    assert (caught.value.reason, caught.value.retryable) == ("helper_lost", True)
    await until(lambda: not processes_in(helper), "no process left")
    await until(lambda: not remote.ready, "the worker not ready")
    with pytest.raises(SandboxFailure, match="no sandbox helper answers"):
        await remote.open("another", archive(tmp_path), b"", LIMITS)

    helper.start()
    await until(lambda: remote.ready, "the worker connected again")
    assert left_of(helper) == []
    with pytest.raises(SandboxFailure) as caught:
        await run(remote, workspace, ("true",))  # type: ignore[arg-type]
    assert (caught.value.reason, caught.value.retryable) == ("helper_lost", True)
    await remote.close(workspace)
    again = await remote.open("doomed", archive(tmp_path), b"", LIMITS)
    assert (await run(remote, again, ("true",))).reason is Reason.OK  # type: ignore[arg-type]
    await remote.shutdown()


async def test_a_worker_stands_on_the_helpers_proof_and_not_without_the_helper(
    helper: RunningHelper, remote: RemoteDriver, tmp_path: Path
) -> None:
    await remote.probe()
    standing = Standing(remote, look_seconds=3600)
    await standing.start()
    try:
        workspace = await remote.open("standing", archive(tmp_path), b"", LIMITS)
        await standing.look()
        assert standing.holds
        helper.stop(signal.SIGKILL)
        await until(lambda: not standing.holds, "the worker not ready")
        await standing.look()  # nothing is known to have changed
        assert standing.reasons == ()
        helper.start()
        await until(lambda: standing.holds, "the worker ready again")
        await standing.look()
        assert await standing.check()
        await remote.close(workspace)
    finally:
        await standing.stop()
        await remote.shutdown()


async def test_operators_see_what_a_worker_has_and_end_it(
    helper: RunningHelper, remote: RemoteDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = HeldWorkspaces(remote, 4, Notes(helper.state_dir))
    await held.begin()
    source = archive(tmp_path)

    async def load() -> tuple[Path, bytes, Path | None]:
        return source, b"", None

    async with held.at(Place("ten_a", "run_seen", "base", ""), LIMITS, load, "shell", "effect") as one:
        running = asyncio.ensure_future(run(remote, one.workspace, ("sleep", "600")))  # type: ignore[arg-type]
        while not (rows := await listed(helper, capsys)) or rows[0]["processes"] < 2:
            await asyncio.sleep(0.02)
        [row] = rows
        assert (row["workspace"], row["run_id"], row["state"]) == (one.workspace.name, "run_seen", "working")
        assert row["slot"] in SLOTS
        assert sandbox_machine.recover(helper.state_dir, as_json=True) == 1  # a helper lives
        ending = asyncio.create_task(asyncio.to_thread(sandbox_machine.kill, helper.state_dir, "run_seen"))
        while not ending.done():
            await held.obey()
            await asyncio.sleep(0.02)
        assert await ending == 0
        assert (await running).reason is Reason.CANCELED
        assert one.ended_by is not None
    assert await listed(helper, capsys) == []
    await remote.shutdown()


async def listed(helper: RunningHelper, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert await asyncio.to_thread(sandbox_machine.list_workspaces, helper.state_dir, as_json=True) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_what_a_dead_helper_left_is_recovered(
    helper: RunningHelper, remote: RemoteDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await remote.open("left", archive(tmp_path), b"", LIMITS)
    helper.stop(signal.SIGKILL)
    assert len(survey(helper.state_dir).workspaces) == 1
    assert await asyncio.to_thread(sandbox_machine.recover, helper.state_dir, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["removed"]["workspaces"] == 1
    assert left_of(helper) == []
    await remote.shutdown()


async def test_a_command_can_neither_see_nor_reach_the_socket(
    helper: RunningHelper, remote: RemoteDriver, tmp_path: Path
) -> None:
    workspace = await remote.open("curious", archive(tmp_path), b"", LIMITS)
    command = ("python3", "-I", "-c", SEEN_FROM_INSIDE, str(helper.socket))
    assert (await run(remote, workspace, command)).stdout == b"[]\n"  # type: ignore[arg-type]
    await remote.shutdown()


async def test_only_the_workers_user_is_let_in(helper: RunningHelper) -> None:
    restart(helper, WORKER_UID)
    assert (helper.socket.stat().st_uid, helper.socket.stat().st_gid) == (0, WORKER_UID)
    assert helper.socket.stat().st_mode & 0o777 == 0o660
    # Root passes by the socket's mode, and is turned away by who it is.
    root = RemoteDriver(helper.socket, IsolationLevel.KERNEL, first_seconds=0.5)
    with pytest.raises(SandboxUnavailable, match="another user"):
        await root.probe()
    await root.shutdown()
    helper.socket.chmod(0o666)
    for uid, let_in in ((WORKER_UID, b"True\n"), (STRANGER_UID, b"False\n")):
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "/usr/bin/python3", "-I", "-c"]
        assert subprocess.run([*command, GREETED, str(helper.socket)], capture_output=True, check=True).stdout == let_in


async def test_a_helper_below_the_level_asked_for_is_not_used(helper: RunningHelper) -> None:
    demanding = RemoteDriver(helper.socket, IsolationLevel.OWN_KERNEL, first_seconds=0.5)
    with pytest.raises(SandboxUnavailable, match="level 2, not 3"):
        await demanding.probe()
    await demanding.shutdown()


def test_nothing_of_its_callers_environment_reaches_it(tmp_path: Path) -> None:
    secret = "postgresql://codeagent:hunter2@db/codeagent"
    environment = {**os.environ, "CODEAGENT_DATABASE_URL": secret, "CODEAGENT_KEK": secret, "PYTHONPATH": "/nowhere"}
    seen = subprocess.Popen(
        [sys.executable, "-c", SHOWING_ENVIRONMENT], env=environment, stdout=subprocess.PIPE, cwd=tmp_path
    )
    output, _ = seen.communicate(timeout=30)
    assert output.split(b"\0") == [b"PATH=" + os.environ["PATH"].encode(), b""]


SHOWING_ENVIRONMENT = """
from codeagent.cli import sandboxd
sandboxd.PROGRAM = ("-I", "-c", "print(open('/proc/self/environ').read(), end='')")
sandboxd.become_sandboxd([])
"""
