"""Sandboxes with a kernel of their own: what is theirs alone, beside the contract that every driver keeps."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeagent.sandboxes import oci, runsc
from codeagent.sandboxes.local import LocalDriver
from codeagent.sandboxes.protocol import ExecSpec, IsolationLevel, Reason, Workspace
from codeagent.sandboxes.runsc import KERNEL_UID_OFFSET, RunscDriver
from tests.integration.sandboxes.support import (
    LIMITS,
    archive,
    processes_of,
    python,
    require_root_and_runsc,
    run,
    shell,
    slot_of,
)


@pytest.fixture
async def driver(state_dir: Path) -> AsyncIterator[LocalDriver]:
    require_root_and_runsc()
    driver = RunscDriver(state_dir)
    yield driver
    await driver.shutdown()
    assert list((state_dir / "workspaces").iterdir()) == []
    assert list((state_dir / "bundles").iterdir()) == []


@pytest.fixture
async def workspace(driver: LocalDriver, tmp_path: Path) -> Workspace:
    return await driver.open("test", archive(tmp_path, {"README": b"hello\n"}), b"", LIMITS)


def left(workspace: Workspace) -> list[int]:
    slot = slot_of(workspace)
    return processes_of(slot) + processes_of(slot + KERNEL_UID_OFFSET)


async def test_commands_see_a_kernel_that_is_not_the_machines(driver: LocalDriver, workspace: Workspace) -> None:
    record = await shell(driver, workspace, "cat /proc/version; id -u; stat -c %u README")
    version, user, owner = record.stdout.decode().splitlines()
    assert os.uname().release not in version
    assert (user, owner) == ("1000", "1000")
    assert (record.driver, record.level) == ("runsc", IsolationLevel.OWN_KERNEL)


async def test_the_kernel_inside_runs_as_a_user_of_the_machine_that_nothing_else_is(
    driver: LocalDriver, workspace: Workspace
) -> None:
    running = asyncio.ensure_future(run(driver, workspace, ("sleep", "30")))
    kernel = slot_of(workspace) + KERNEL_UID_OFFSET
    async with asyncio.timeout(10):
        while len(processes_of(kernel)) < 3:  # runsc itself, its gofer, the kernel
            await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left(workspace) == []


async def test_what_the_kernel_notes_of_a_program_does_not_hide_how_it_ended(
    driver: LocalDriver, workspace: Workspace
) -> None:
    program = (
        "import os, socket\ntry: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768)\nexcept OSError: os._exit(3)"
    )
    record = await python(driver, workspace, program)
    assert (record.reason, record.exit_code) == (Reason.EXIT, 3)


async def test_a_fork_bomb_is_held_by_the_kernel_inside(driver: LocalDriver, workspace: Workspace) -> None:
    limits = replace(LIMITS, processes=32, wall_seconds=2.0)
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    record = await python(driver, workspace, bomb, limits)
    assert record.reason is Reason.TIMEOUT
    assert left(workspace) == []


async def test_memory_of_all_processes_together_is_limited(driver: LocalDriver, workspace: Workspace) -> None:
    limits = replace(LIMITS, memory_bytes=64 << 20, tmp_bytes=1 << 20)
    bomb = "import os, time\nif os.fork() == 0:\n  x = bytearray(256 << 20)\n  os._exit(0)\ntime.sleep(15)"
    record = await python(driver, workspace, bomb, limits)
    assert (record.reason, record.limits_hit) == (Reason.OOM, ("memory",))
    assert record.wall_seconds < 10


async def test_what_a_command_may_have_it_gets(driver: LocalDriver, workspace: Workspace) -> None:
    limits = replace(LIMITS, memory_bytes=100 << 20)
    record = await python(driver, workspace, "x = bytearray(80 << 20)", limits)
    assert record.reason is Reason.OK


async def test_cpu_time_disk_and_file_sizes_are_limited(driver: LocalDriver, workspace: Workspace) -> None:
    busy = await shell(driver, workspace, "while :; do :; done", replace(LIMITS, cpu_seconds=1))
    assert (busy.reason, busy.limits_hit) == (Reason.TIMEOUT, ("cpu_time",))
    large = await shell(driver, workspace, "exec head -c 10M /dev/zero > big", replace(LIMITS, file_bytes=1 << 20))
    assert (large.reason, large.limits_hit) == (Reason.KILLED, ("file_size",))
    full = await shell(driver, workspace, "head -c 100M /dev/zero > big")
    assert full.reason is Reason.EXIT
    assert "disk" in full.limits_hit


async def test_a_daemon_ends_with_its_command(driver: LocalDriver, workspace: Workspace) -> None:
    record = await shell(driver, workspace, "setsid sleep 600 & exit 3")
    assert (record.reason, record.exit_code) == (Reason.EXIT, 3)
    assert left(workspace) == []


async def test_a_commands_exit_is_not_taken_for_a_failure_of_runsc(driver: LocalDriver, workspace: Workspace) -> None:
    for code in (1, 125, 128, 255):
        record = await shell(driver, workspace, f"exit {code}")
        assert (record.reason, record.exit_code) == (Reason.EXIT, code)


@pytest.mark.parametrize("failing", ["flags", "bundle"])
async def test_a_failure_of_runsc_is_not_taken_for_the_commands(
    driver: LocalDriver, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The command never ran, then, and may be tried again."""
    if failing == "flags":
        monkeypatch.setattr(runsc, "_runsc", lambda program, *_: (program, "run", "--no-such-flag"))
    else:
        monkeypatch.setattr(oci, "_VERSION", {"not": "a version"})
    record = await run(driver, workspace, ("true",))
    assert (record.reason, record.exit_code, record.stderr) == (Reason.SANDBOX_ERROR, None, b"")
    assert record.detail


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGUSR2, Reason.SANDBOX_ERROR), (signal.SIGKILL, Reason.KILLED)]
)
async def test_a_kernel_that_breaks_down_ends_the_command_and_leaves_nothing(
    driver: LocalDriver, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason
) -> None:
    begun, usual = asyncio.Event(), runsc._runsc

    async def sink(_stream: str, _piece: bytes) -> None:
        begun.set()

    def panicking(program: str, *rest: Any) -> tuple[str, ...]:
        return (program, f"--panic-signal={signal.SIGUSR2}", *usual(program, *rest)[1:])

    monkeypatch.setattr(runsc, "_runsc", panicking)
    spec = ExecSpec(("sh", "-c", "echo; sleep 30"), limits=LIMITS)
    running = asyncio.ensure_future(driver.run(workspace, spec, sink))
    await asyncio.wait_for(begun.wait(), 10)
    kernels = processes_of(slot_of(workspace) + KERNEL_UID_OFFSET)
    [found] = [pid for pid in kernels if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"runsc-sandbox")]
    os.kill(found, number)
    assert (await running).reason is reason
    assert left(workspace) == []


async def test_with_a_way_out_no_socket_of_the_machine_is_made_or_reached_but_that_one(
    driver: LocalDriver, workspace: Workspace, tmp_path: Path
) -> None:
    """Showing it one lets gVisor connect to those of the machine at all."""
    program = """
import os, socket, stat, sys
for path in ("/workspace/bound", "/tmp/bound", "/home/agent/bound"):
    socket.socket(socket.AF_UNIX).bind(path)
    print(stat.S_ISSOCK(os.stat(path).st_mode))
os.mknod("/workspace/made", 0o777 | stat.S_IFSOCK)
os.symlink(sys.argv[1], "/tmp/link")
for path in ("/tmp/link", sys.argv[1], "/proc/1/root" + sys.argv[1], "\\0codeagent-of-the-machine", "/workspace/made"):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("reached", path)
    except OSError:
        pass
"""
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        named.bind(str(tmp_path / "socket"))
        (tmp_path / "socket").chmod(0o777)
        abstract.bind("\0codeagent-of-the-machine")
        for listener in (named, abstract):
            listener.listen()
            listener.setblocking(False)
        words = ("python3", "-c", program, str(tmp_path / "socket"))
        record = await run(driver, workspace, words, egress=("registry.example:443",))
        assert (record.reason, record.stdout) == (Reason.OK, b"True\n" * 3)
        for listener in (named, abstract):
            with pytest.raises(BlockingIOError):
                listener.accept()
    assert [path.name for path in workspace.files.iterdir()] == ["README"]  # type: ignore[attr-defined]
