"""Proves, on this machine and from inside, that a driver isolates and that its limits bite."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
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
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            facts = await _look(driver)
    except SandboxFailure as failure:
        raise SandboxUnavailable([f"a sandbox cannot be started: {failure}"]) from failure
    except TimeoutError:
        raise SandboxUnavailable([f"a sandbox did not answer within {_PROBE_SECONDS:g} s"]) from None
    missed = [f"not proven: {name.replace('_', ' ')}" for name, holds in facts.items() if not holds]
    if missed:
        raise SandboxUnavailable(missed)
    return ProbeReport(driver=driver.name, version=version, level=driver.level, facts=facts)


async def _look(driver: SandboxDriver) -> dict[str, bool]:
    workspace = await _open(driver)
    try:
        program = await in_thread(_PROGRAM.read_text, encoding="utf-8")
        kernel = await in_thread(Path("/proc/version").read_text)
        answer = await _run(driver, workspace, program, _ROOM, str(int(driver.level)), kernel)
        if answer.reason is not Reason.OK:
            words = answer.detail or answer.stderr.decode("utf-8", "replace")[-300:]
            raise SandboxUnavailable([f"a sandbox does not work here ({answer.reason}): {words.strip()}"])
        facts = {str(name): bool(holds) for name, holds in json.loads(answer.stdout).items()}
        return facts | await _limits(driver, workspace)
    finally:
        await driver.close(workspace)


async def _open(driver: SandboxDriver) -> Workspace:
    with tempfile.TemporaryDirectory() as folder:
        tree, archive = Path(folder, "tree"), Path(folder, "empty.tar.gz")
        await in_thread(tree.mkdir)
        await in_thread(archives.pack, tree, archive, _ROOM)
        return await driver.open(f"probe-{secrets.token_hex(8)}", archive, b"", _ROOM)


async def _limits(driver: SandboxDriver, workspace: Workspace) -> dict[str, bool]:
    wall = driver.run(workspace, ExecSpec(("sleep", "30"), limits=_WALL), discard)
    if driver.level < IsolationLevel.KERNEL:
        return {"wall_time_limited": (await wall).reason is Reason.TIMEOUT}
    slow, large, many = await asyncio.gather(
        wall,
        _run(driver, workspace, _MEMORY_PROGRAM, _MEMORY),
        _run(driver, workspace, _PIDS_PROGRAM, _PIDS),
    )
    return {
        "wall_time_limited": slow.reason is Reason.TIMEOUT,
        "memory_limited": large.reason is Reason.OOM,
        # What refuses them may be a kernel inside, of which only the program knows.
        "processes_limited": "pids" in many.limits_hit or 0 < int(many.stdout or b"0") <= _PIDS.processes,
    }


async def _run(driver: SandboxDriver, workspace: Workspace, program: str, limits: Limits, *words: str) -> ExecRecord:
    return await driver.run(workspace, ExecSpec(("python3", "-I", "-c", program, *words), limits=limits), discard)
