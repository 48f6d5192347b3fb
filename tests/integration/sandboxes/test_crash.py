"""What is left when a worker is killed, and what the next one does about it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codeagent.sandboxes import mounts
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.cgroup_layout import find_trees
from codeagent.sandboxes.machine import group_name
from codeagent.sandboxes.protocol import SandboxUnavailable
from codeagent.sandboxes.runsc import KERNEL_UID_OFFSET, RunscDriver
from tests.integration.sandboxes.support import LIMITS, archive, processes_of, require_root_and_runsc, run

WORKER = """
import asyncio, sys
from pathlib import Path
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.runsc import RunscDriver
from tests.integration.sandboxes.support import LIMITS, run

async def main():
    make = {"bwrap": BubblewrapDriver, "runsc": RunscDriver}[sys.argv[3]]
    driver = make(Path(sys.argv[1]), slot_uids=range(250_000, 250_010))
    workspaces = [await driver.open(f"doomed {i}", Path(sys.argv[2]), b"", LIMITS) for i in range(3)]
    *busy, idle = workspaces
    commands = [asyncio.ensure_future(run(driver, w, ("sh", "-c", "setsid sleep 600 & touch begun; sleep 600"))) for w in busy]
    while not all((w.files / "begun").exists() for w in busy):
        await asyncio.sleep(0.05)
    assert (idle.parked is not None) == (sys.argv[3] == "bwrap")
    print("running", flush=True)
    await asyncio.wait(commands)

asyncio.run(main())
"""


LEFT = {"bwrap", "unshare", "runsc", "exe"}


def slots_in_use() -> list[int]:
    slots = range(250_000, 250_010)
    return [pid for uid in (*slots, *(slot + KERNEL_UID_OFFSET for slot in slots)) for pid in processes_of(uid)]


def groups_of(state_dir: Path) -> list[Path]:
    base = find_trees().below(group_name(state_dir))
    return [child for directory in base.directories for child in directory.glob("*") if child.is_dir()]


def wait_for_orphans() -> None:
    """This process inherits what the worker leaves, because drivers of other tests asked for that."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        names = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, _, rest = path.read_text().partition(" (")
                name, _, more = rest.rpartition(") ")
                names.update({int(pid): name} if more.split()[1] == str(os.getpid()) else {})
        orphans = [pid for pid, name in names.items() if name in LEFT]
        if not orphans:
            return
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["bwrap", "runsc"])
async def test_a_killed_worker_leaves_no_process_and_the_next_one_removes_the_rest(
    state_dir: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "runsc":
        require_root_and_runsc()
    source = archive(tmp_path)
    warm = BubblewrapDriver(state_dir)
    await warm.reap(frozenset())
    await warm.shutdown()
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(state_dir), str(source), kind], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert worker.stdout is not None
    try:
        assert await asyncio.to_thread(worker.stdout.readline) == b"running\n"
        assert len(slots_in_use()) >= (5 if kind == "bwrap" else 4)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        await asyncio.to_thread(wait_for_orphans)
    deadline = time.monotonic() + 5
    while slots_in_use() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert slots_in_use() == []
    assert len(mounts.mounted_below(state_dir / "workspaces")) == 6
    assert groups_of(state_dir) != []

    successor = {"bwrap": BubblewrapDriver, "runsc": RunscDriver}[kind](state_dir)
    try:
        assert await successor.reap(frozenset()) == 3
        assert list(state_dir.glob("bundles/*")) == []
        assert mounts.mounted_below(state_dir) == []
        assert list((state_dir / "workspaces").iterdir()) == []
        assert groups_of(state_dir) == []
        assert await successor.reap(frozenset()) == 0
    finally:
        await successor.shutdown()


async def test_reaping_spares_what_is_to_be_kept(driver: BubblewrapDriver, tmp_path: Path) -> None:
    source = archive(tmp_path)
    kept = await driver.open("kept", source, b"", LIMITS)
    doomed = await driver.open("doomed", source, b"", LIMITS)
    running = asyncio.ensure_future(run(driver, doomed, ("sleep", "60")))
    await asyncio.sleep(0.2)
    assert await driver.reap(frozenset({"kept"})) == 1
    assert (await running).reason == "canceled"
    assert (await run(driver, kept, ("true",))).exit_code == 0


async def test_a_sandbox_that_outlived_its_worker_is_found_and_ended(
    state_dir: Path, driver: BubblewrapDriver, tmp_path: Path
) -> None:
    """The worker may die before the sandbox has tied itself to it; then only its command line tells whose it is."""
    left = state_dir / "workspaces" / "wleft"
    await driver.reap(frozenset())
    (left / "files").mkdir(parents=True)
    stray = subprocess.Popen(
        ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--bind", str(left / "files"), "/tmp",
         "sleep", "600"]
    )  # fmt: skip
    await asyncio.sleep(0.3)
    assert await driver.reap(frozenset()) == 1
    assert await asyncio.to_thread(stray.wait, 5) == -signal.SIGKILL
    await asyncio.to_thread(wait_for_orphans)


async def test_two_workers_cannot_share_a_state_directory(state_dir: Path, driver: BubblewrapDriver) -> None:
    await driver.reap(frozenset())
    other = BubblewrapDriver(state_dir)
    with pytest.raises(SandboxUnavailable, match="another worker"):
        await other.probe()


async def test_two_workers_never_lend_the_same_slot(state_dir: Path, driver: BubblewrapDriver, tmp_path: Path) -> None:
    second_dir = state_dir / "second-worker"
    source = archive(tmp_path)
    await driver.reap(frozenset())
    second_dir.mkdir()
    (second_dir / "runtime").symlink_to(state_dir / "runtime")
    second = BubblewrapDriver(second_dir)
    try:
        here = await driver.open("here", source, b"", LIMITS)
        there = await second.open("there", source, b"", LIMITS)
        assert here.slot_uid != there.slot_uid  # type: ignore[attr-defined]
    finally:
        await second.shutdown()
    assert os.path.isdir(state_dir / "runtime")
