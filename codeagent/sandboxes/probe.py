"""Proves, on this machine and from inside, that a driver isolates and that its limits bite."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import Awaitable, Mapping
from pathlib import Path

from codeagent.sandboxes import archives
from codeagent.sandboxes.protocol import (
    ExecRecord,
    ExecSpec,
    IsolationLevel,
    Limits,
    ProbeReport,
    Reason,
    SandboxDriver,
    SandboxFailure,
    SandboxUnavailable,
    Workspace,
)
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.uninterrupted import in_thread

_PROBE_SECONDS = 10.0
_PROGRAM = Path(__file__).with_name("inside") / "facts.py"
_ROOM = Limits(workspace_bytes=16 << 20, workspace_inodes=1000, tmp_bytes=16 << 20, wall_seconds=_PROBE_SECONDS)

_MEMORY = Limits(memory_bytes=32 << 20, tmp_bytes=1 << 20, wall_seconds=5.0)
_MEMORY_PROGRAM = "x = bytearray(128 << 20)"
_WALL = Limits(wall_seconds=0.3)
_PIDS = Limits(processes=16, wall_seconds=5.0)
_PIDS_PROGRAM = """
import os, time
for made in range(40):
    try:
        child = os.fork()
    except BlockingIOError:
        print(made)
        break
    if child == 0:
        time.sleep(5)
        os._exit(0)
"""


async def prove(driver: SandboxDriver, version: str) -> ProbeReport:
    """Raises `SandboxUnavailable` with everything that was not proven, within ten seconds."""
    return await proven(driver, version, _look(driver), _PROBE_SECONDS)


async def proven(
    driver: SandboxDriver, version: str, looking: Awaitable[Mapping[str, bool]], seconds: float
) -> ProbeReport:
    """What was found within that time. Raises `SandboxUnavailable` with everything that does not hold."""
    try:
        async with asyncio.timeout(seconds):
            facts = await looking
    except SandboxFailure as failure:
        raise SandboxUnavailable([f"a sandbox cannot be started: {failure}"]) from failure
    except TimeoutError:
        raise SandboxUnavailable([f"a sandbox did not answer within {seconds:g} s"]) from None
    missed = [f"not proven: {name.replace('_', ' ')}" for name, holds in facts.items() if not holds]
    if missed:
        raise SandboxUnavailable(missed)
    return ProbeReport(driver=driver.name, version=version, level=driver.level, facts=facts)


async def _look(driver: SandboxDriver) -> dict[str, bool]:
    workspace = await opened(driver, _ROOM)
    try:
        kernel = await in_thread(Path("/proc/version").read_text)
        facts = await facts_inside(driver, workspace, _PROGRAM, _ROOM, kernel)
        return facts | await _limits(driver, workspace)
    finally:
        await driver.close(workspace)


async def opened(driver: SandboxDriver, room: Limits) -> Workspace:
    """An empty workspace to look around in."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "empty.tar.gz")
        await in_thread(archives.pack_files, {}, archive, room)
        return await driver.open(f"probe-{secrets.token_hex(8)}", archive, b"", room)


async def facts_inside(
    driver: SandboxDriver, workspace: Workspace, program: Path, room: Limits, *words: str
) -> dict[str, bool]:
    """What the program finds, told the level and `words`. Raises `SandboxUnavailable` where it cannot be run."""
    text = await in_thread(program.read_text, encoding="utf-8")
    answer = await run_python(driver, workspace, text, room, str(int(driver.level)), *words)
    if answer.reason is not Reason.OK:
        told = answer.detail or answer.stderr.decode("utf-8", "replace")[-300:]
        raise SandboxUnavailable([f"a sandbox does not work here ({answer.reason}): {told.strip()}"])
    return {str(name): bool(holds) for name, holds in json.loads(answer.stdout).items()}


async def _limits(driver: SandboxDriver, workspace: Workspace) -> dict[str, bool]:
    wall = driver.run(workspace, ExecSpec(("sleep", "30"), limits=_WALL), discard)
    if driver.level < IsolationLevel.KERNEL:
        return {"wall_time_limited": (await wall).reason is Reason.TIMEOUT}
    slow, large, many = await asyncio.gather(
        wall,
        run_python(driver, workspace, _MEMORY_PROGRAM, _MEMORY),
        run_python(driver, workspace, _PIDS_PROGRAM, _PIDS),
    )
    return {
        "wall_time_limited": slow.reason is Reason.TIMEOUT,
        "memory_limited": large.reason is Reason.OOM,
        # What refuses them may be a kernel inside, of which only the program knows.
        "processes_limited": "pids" in many.limits_hit or 0 < int(many.stdout or b"0") <= _PIDS.processes,
    }


async def run_python(
    driver: SandboxDriver, workspace: Workspace, program: str, limits: Limits, *words: str
) -> ExecRecord:
    return await driver.run(workspace, ExecSpec(("python3", "-I", "-c", program, *words), limits=limits), discard)
