"""How commands run, and how their ends are told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import ExecSpec, IsolationLevel, Reason, SandboxFailure, Workspace
from tests.integration.sandboxes.support import (
    LIMITS,
    Collected,
    archive,
    ignore,
    processes_of,
    python,
    run,
    shell,
    slot_of,
)


async def test_python_pytest_and_git_work(driver: BubblewrapDriver, workspace: Workspace) -> None:
    await driver.write_file(workspace, "test_it.py", b"def test_it():\n    import ssl, sqlite3, ctypes, zlib\n")
    record = await shell(
        driver, workspace, "python --version && python3 -m pytest -q test_it.py && pytest --version && git --version"
    )
    assert record.reason is Reason.OK, record.stderr
    assert b"1 passed" in record.stdout
    assert record.level is IsolationLevel.KERNEL
    patch = await driver.diff(workspace, LIMITS)
    assert patch.files == ("test_it.py",)  # and none of pytest's or Python's leavings


@pytest.mark.parametrize(
    ("script", "reason", "exit_code", "signal"),
    [
        ("true", Reason.OK, 0, None),
        ("exit 1", Reason.EXIT, 1, None),
        ("exit 255", Reason.EXIT, 255, None),
        ("kill -KILL $$", Reason.KILLED, 137, 9),
        ("no-such-program", Reason.EXIT, 127, None),
    ],
)
async def test_the_end_of_a_command_is_told(
    driver: BubblewrapDriver, workspace: Workspace, script: str, reason: Reason, exit_code: int, signal: int | None
) -> None:
    record = await shell(driver, workspace, script)
    assert (record.reason, record.exit_code, record.signal) == (reason, exit_code, signal)
    assert record.wall_seconds > 0
    assert record.cpu_seconds > 0
    assert record.peak_memory_bytes > 0


async def test_a_program_that_does_not_exist_is_the_commands_failure(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    record = await run(driver, workspace, ("no-such-program",))
    assert (record.reason, record.exit_code) == (Reason.EXIT, 127)
    assert b"not found" in record.stderr


async def test_input_environment_and_directory_are_given(driver: BubblewrapDriver, workspace: Workspace) -> None:
    await driver.write_file(workspace, "a/b/file", b"")
    data = b"x" * 300_000
    spec = ExecSpec(
        ("sh", "-c", "pwd; echo $WORD; wc -c"), cwd="a/b", env={"WORD": "two words"}, stdin=data, limits=LIMITS
    )
    record = await driver.run(workspace, spec, ignore)
    assert record.stdout == b"/workspace/a/b\ntwo words\n300000\n"


@pytest.mark.parametrize("cwd", ["missing", "../..", "/etc", "README", "link"])
async def test_a_directory_that_is_none_is_refused(driver: BubblewrapDriver, workspace: Workspace, cwd: str) -> None:
    await shell(driver, workspace, "ln -s /etc link")
    with pytest.raises(SandboxFailure) as caught:
        await driver.run(workspace, ExecSpec(("true",), cwd=cwd, limits=LIMITS), ignore)
    assert (caught.value.reason, caught.value.retryable) == ("bad_path", False)


@pytest.mark.parametrize("argv", [(), ("",), ("a\0b",), ("x" * 200_000,), ("\ud800",)])
async def test_a_command_no_machine_could_run_is_refused(
    driver: BubblewrapDriver, workspace: Workspace, argv: tuple[str, ...]
) -> None:
    with pytest.raises(SandboxFailure) as caught:
        await run(driver, workspace, argv)
    assert (caught.value.reason, caught.value.retryable) == ("bad_command", False)


async def test_output_arrives_while_the_command_runs(driver: BubblewrapDriver, workspace: Workspace) -> None:
    arrived: list[tuple[float, str, bytes]] = []

    async def sink(stream: str, piece: bytes) -> None:
        arrived.append((time.monotonic(), stream, piece))

    await driver.run(workspace, ExecSpec(("sh", "-c", "echo a; sleep 0.5; echo b >&2"), limits=LIMITS), sink)
    assert [(stream, piece) for _, stream, piece in arrived] == [("stdout", b"a\n"), ("stderr", b"b\n")]
    assert arrived[1][0] - arrived[0][0] > 0.4


async def test_a_slow_caller_slows_the_command(driver: BubblewrapDriver, workspace: Workspace) -> None:
    taken = 0

    async def slow(_stream: str, piece: bytes) -> None:
        nonlocal taken
        taken += len(piece)
        await asyncio.sleep(0.2)

    limits = replace(LIMITS, wall_seconds=1.0, output_kept_bytes=64 << 20, output_hard_bytes=64 << 20)
    record = await driver.run(workspace, ExecSpec(("yes",), limits=limits), slow)
    assert record.reason is Reason.TIMEOUT
    assert taken == len(record.stdout) < 2 << 20


async def test_a_caller_that_never_takes_the_output_does_not_hold_the_worker(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    async def stuck(_stream: str, _piece: bytes) -> None:
        await asyncio.Event().wait()

    began = time.monotonic()
    record = await driver.run(workspace, ExecSpec(("echo", "word"), limits=LIMITS), stuck)
    assert (record.reason, record.stdout) == (Reason.OK, b"word\n")
    assert time.monotonic() - began < 8


async def test_a_caller_that_fails_ends_the_command(cold: BubblewrapDriver, tmp_path: Path) -> None:
    workspace = await cold.open("test", archive(tmp_path, {}), b"", LIMITS)

    async def failing(_stream: str, _piece: bytes) -> None:
        raise RuntimeError("the client went away")

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="went away"):
        await cold.run(workspace, ExecSpec(("sh", "-c", "echo x; sleep 15"), limits=LIMITS), failing)
    assert time.monotonic() - began < 5
    assert processes_of(slot_of(workspace)) == []


async def test_more_output_than_kept_is_counted_but_not_kept(driver: BubblewrapDriver, workspace: Workspace) -> None:
    limits = replace(LIMITS, output_kept_bytes=10)
    sink = Collected()
    record = await driver.run(workspace, ExecSpec(("sh", "-c", "seq 1 100; echo err >&2"), limits=limits), sink)
    assert (record.reason, record.stdout, record.stdout_seen_bytes) == (Reason.OK, b"1\n2\n3\n4\n5\n", 292)
    assert record.limits_hit == ("output_truncated",)
    assert sink.pieces == {"stdout": b"1\n2\n3\n4\n5\n", "stderr": b"err\n"}


async def test_wall_time_is_limited(driver: BubblewrapDriver, workspace: Workspace) -> None:
    record = await shell(driver, workspace, "echo before; sleep 60", replace(LIMITS, wall_seconds=0.5))
    assert (record.reason, record.exit_code, record.stdout) == (Reason.TIMEOUT, None, b"before\n")
    assert 0.5 <= record.wall_seconds < 10


RELAY = """
import os, time
while True:
    if os.fork() == 0:
        while time.process_time() < 0.2: pass
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("program", ["while True: pass", RELAY], ids=["one process", "one after another"])
async def test_cpu_time_is_limited_for_one_process_and_for_all_together(
    driver: BubblewrapDriver, workspace: Workspace, program: str
) -> None:
    record = await python(driver, workspace, program, replace(LIMITS, cpu_seconds=1))
    assert record.reason is Reason.TIMEOUT
    assert "cpu_time" in record.limits_hit
    assert record.wall_seconds < 10


async def test_the_share_of_the_processor_is_limited(driver: BubblewrapDriver, workspace: Workspace) -> None:
    program = "import os\nos.fork()\nwhile True: pass"
    record = await python(driver, workspace, program, replace(LIMITS, cpu_cores=0.25, wall_seconds=2.0))
    assert record.cpu_seconds / record.wall_seconds < 0.35


async def test_the_size_of_a_file_is_limited(driver: BubblewrapDriver, workspace: Workspace) -> None:
    record = await run(driver, workspace, ("head", "-c", "3M", "/dev/zero"), replace(LIMITS, file_bytes=1 << 20))
    assert record.reason is Reason.OK
    record = await shell(driver, workspace, "exec head -c 3M /dev/zero > big", replace(LIMITS, file_bytes=1 << 20))
    assert (record.reason, record.limits_hit) == (Reason.KILLED, ("file_size",))


async def test_a_cancelled_command_is_gone_before_the_cancellation_is_seen(
    cold: BubblewrapDriver, tmp_path: Path
) -> None:
    workspace = await cold.open("test", archive(tmp_path, {}), b"", LIMITS)
    running = asyncio.ensure_future(shell(cold, workspace, "trap '' TERM; setsid sleep 60 & sleep 60"))
    await asyncio.sleep(0.5)
    assert processes_of(slot_of(workspace)) != []
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processes_of(slot_of(workspace)) == []


@pytest.mark.parametrize("moment", range(12))
async def test_cancelling_at_any_moment_of_the_start_leaves_nothing(
    cold: BubblewrapDriver, tmp_path: Path, moment: int
) -> None:
    workspace = await cold.open("test", archive(tmp_path, {}), b"", LIMITS)
    for _ in range(3):
        running = asyncio.ensure_future(run(cold, workspace, ("sleep", "60")))
        await asyncio.sleep(moment * 0.002)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert processes_of(slot_of(workspace)) == []


async def test_closing_a_workspace_ends_its_commands(driver: BubblewrapDriver, workspace: Workspace) -> None:
    running = asyncio.ensure_future(run(driver, workspace, ("sleep", "60")))
    await asyncio.sleep(0.3)
    await driver.close(workspace)
    assert (await running).reason is Reason.CANCELED
    with pytest.raises(SandboxFailure) as caught:
        await run(driver, workspace, ("true",))
    assert caught.value.reason == "closed"
    await driver.close(workspace)


async def test_many_commands_at_once_do_not_mix(driver: BubblewrapDriver, workspace: Workspace) -> None:
    records = await asyncio.gather(*(shell(driver, workspace, f"sleep 0.1; echo {i}; exit {i}") for i in range(12)))
    assert [record.stdout for record in records] == [f"{i}\n".encode() for i in range(12)]
    assert [record.exit_code for record in records] == list(range(12))


def children() -> set[str]:
    """Every process this one has to wait for, by pid and name: other tests of the session may have left theirs."""
    pids = [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(f"{pid} {Path(f'/proc/{pid}/comm').read_text().strip()}")
    return found


async def test_no_process_is_left_unwaited_for(cold: BubblewrapDriver, tmp_path: Path) -> None:
    before = children()
    workspace = await cold.open("test", archive(tmp_path, {}), b"", LIMITS)
    for script in ("true", "sleep 60 & exit 3", "kill -9 $$", "setsid sleep 60 & true"):
        await shell(cold, workspace, script)
    running = asyncio.ensure_future(run(cold, workspace, ("sleep", "60")))
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children() - before == set()


async def test_a_sandbox_that_cannot_start_is_not_the_commands_failure(
    driver: BubblewrapDriver, tmp_path: Path
) -> None:
    workspace = await driver.open("hidden", archive(tmp_path), b"", LIMITS)
    record = await run(driver, workspace, ("true",), replace(LIMITS, open_files=3))
    assert record.reason is Reason.SANDBOX_ERROR
    assert (record.exit_code, record.stderr) == (None, b"")
    assert record.detail


async def test_commands_run_as_the_slot_and_as_nobody_else(driver: BubblewrapDriver, workspace: Workspace) -> None:
    running = asyncio.ensure_future(run(driver, workspace, ("sleep", "600")))
    outside: list[bytes] = []
    async with asyncio.timeout(10):
        while b"sleep\x00600\x00" not in outside:
            await asyncio.sleep(0.02)
            outside = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(slot_of(workspace))]
    assert slot_of(workspace) >= 200_000
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
