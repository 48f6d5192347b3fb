"""Sandboxes that were started before there was a command: used once, replaced, and indistinguishable from others."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes import argv
from codeagent.sandboxes.box import Box
from codeagent.sandboxes.bwrap import BubblewrapDriver, ParkedChild
from codeagent.sandboxes.launches import Parked
from codeagent.sandboxes.protocol import Limits, Reason, Workspace
from codeagent.sandboxes.workspaces import OpenWorkspace
from tests.integration.sandboxes.support import LIMITS, archive, processes_of, run, shell, slot_of


def parked_in(workspace: Workspace) -> Parked:
    assert isinstance(workspace, OpenWorkspace)
    assert workspace.parked is not None
    return workspace.parked


def members(parked: Parked) -> list[int]:
    assert parked.launch.group is not None
    return [int(pid) for pid in parked.launch.group.procs_files[0].read_text().split()]


async def waiting(parked: Parked) -> int:
    """The pid of a parked sandbox once it is one, that is, reads what it will be told."""
    async with asyncio.timeout(10):
        while True:
            for pid in members(parked):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"bwrap"):
                    return pid
            await asyncio.sleep(0.005)


@pytest.fixture
async def cold(state_dir: Path) -> AsyncIterator[BubblewrapDriver]:
    directory = state_dir / "without-parking"
    directory.mkdir(exist_ok=True)
    if not (directory / "runtime").exists():
        (directory / "runtime").symlink_to(state_dir / "runtime")
    driver = BubblewrapDriver(directory, parked=False)
    yield driver
    await driver.shutdown()


async def test_a_command_runs_in_the_sandbox_that_waited_and_another_takes_its_place(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    first = parked_in(workspace)
    assert await waiting(first) in processes_of(slot_of(workspace))
    command = asyncio.ensure_future(run(driver, workspace, ("sleep", "0.3")))
    async with asyncio.timeout(10):
        while len(members(first)) < 3:  # bubblewrap twice, and the command
            await asyncio.sleep(0.005)
    assert (await command).reason is Reason.OK
    await asyncio.sleep(0)
    assert parked_in(workspace) is not first


@pytest.mark.parametrize(
    "words",
    [
        ("printf", "%s|", "it's", "$HOME `id`", "two\nlines", "", "--", "\\", "*", "\udcff\udcfe", 'say "so"'),
        ("sh", "-c", 'echo "$VALUE"; pwd; env | sort; cat; exit 3'),
        ("no-such-program",),
        ("-n",),
        ("kill", "-9", "0"),
    ],
)
async def test_a_parked_sandbox_cannot_be_told_from_another(
    driver: BubblewrapDriver, cold: BubblewrapDriver, tmp_path: Path, words: tuple[str, ...]
) -> None:
    source = archive(tmp_path, {"folder/file": b"x"})
    records = []
    for one in (driver, cold):
        workspace = await one.open("same", source, b"", LIMITS)
        records.append(await run(one, workspace, words, cwd="folder", env={"VALUE": "a 'b' $c\n\udcff"}))
    parked, other = records
    assert (parked.reason, parked.exit_code, parked.stdout) == (other.reason, other.exit_code, other.stdout)
    assert parked.stderr.replace(b"eval: ", b"") == other.stderr.replace(b"eval: ", b"")


async def test_input_and_commands_too_long_to_be_told_are_run_all_the_same(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    first = parked_in(workspace)
    assert (await run(driver, workspace, ("cat",), stdin=b"hello")).stdout == b"hello"
    assert parked_in(workspace) is first
    assert (await run(driver, workspace, ("printf", "%s", "x" * 100_000))).stdout == b"x" * 100_000


async def test_a_variable_of_the_command_is_never_lost(driver: BubblewrapDriver, workspace: Workspace) -> None:
    record = await run(driver, workspace, ("printenv", argv.COMMAND), env={argv.COMMAND: "mine"})
    assert record.stdout == b"mine\n"
    assert (await run(driver, workspace, ("printenv", argv.COMMAND))).exit_code == 1


async def test_other_limits_than_those_it_was_parked_with_hold(driver: BubblewrapDriver, workspace: Workspace) -> None:
    few = replace(LIMITS, open_files=32)
    assert (await shell(driver, workspace, "ulimit -n", few)).stdout == b"32\n"
    await asyncio.sleep(0)
    assert parked_in(workspace).limits == few
    assert (await shell(driver, workspace, "ulimit -n", few)).stdout == b"32\n"
    assert (await shell(driver, workspace, "ulimit -n")).stdout == f"{Limits().open_files}\n".encode()


async def test_one_that_died_is_replaced(driver: BubblewrapDriver, workspace: Workspace) -> None:
    dead = parked_in(workspace)
    os.kill(await waiting(dead), 9)
    await dead.launch.program.ended()
    assert (await run(driver, workspace, ("true",))).reason is Reason.OK
    await asyncio.sleep(0)
    await waiting(parked_in(workspace))


async def test_what_was_used_before_the_command_came_is_not_its_own(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    group = parked_in(workspace).launch.group
    assert group is not None
    joins = "".join(f"echo $$ >{file}\n" for file in group.procs_files)
    busy = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
    await asyncio.to_thread(subprocess.run, ["sh", "-c", joins + busy], check=True)
    used = group.usage().cpu_seconds
    record = await run(driver, workspace, ("sleep", "0.2"))
    assert 0 < record.cpu_seconds < used
    assert 0.2 <= record.wall_seconds < 10


async def test_one_that_is_told_nothing_ends_before_anything_is_made(workspace: Workspace) -> None:
    """As when its worker is killed: a process that is made then could wait for one that is being killed as well."""
    program = parked_in(workspace).program
    assert isinstance(program, ParkedChild)
    await waiting(parked_in(workspace))
    program._let_go()
    async with asyncio.timeout(10):
        await program.ended()
    assert program._first_pid is None


async def test_half_of_what_it_is_told_runs_nothing(driver: BubblewrapDriver, workspace: Workspace) -> None:
    """As when a worker is killed while it tells."""
    for kept in (0, 1, 400, -1):
        parked = parked_in(workspace)
        program = parked.program
        assert isinstance(program, ParkedChild)
        box = Box(command=("touch", "/workspace/ran"), workspace=workspace.files)  # type: ignore[attr-defined]
        words = argv.told_to_parked(box, program._around[box.image])
        last = words.rindex(b"--setenv")
        os.write(program._telling, words[: last if kept < 0 else kept])
        program._let_go()
        async with asyncio.timeout(10):
            await program.ended()
        await parked.launch.gone()
        assert not (box.workspace / "ran").exists()
        await run(driver, workspace, ("true",))
        await asyncio.sleep(0)


async def test_closing_ends_the_one_that_waits(driver: BubblewrapDriver, workspace: Workspace) -> None:
    parked = parked_in(workspace)
    await waiting(parked)
    assert parked.launch.group is not None
    await driver.close(workspace)
    assert processes_of(slot_of(workspace)) == []
    assert not any(file.exists() for file in parked.launch.group.procs_files)


async def test_none_waits_where_that_is_turned_off(cold: BubblewrapDriver, tmp_path: Path) -> None:
    workspace = await cold.open("cold", archive(tmp_path), b"", LIMITS)
    assert (await run(cold, workspace, ("true",))).reason is Reason.OK
    await asyncio.sleep(0)
    assert processes_of(slot_of(workspace)) == []
