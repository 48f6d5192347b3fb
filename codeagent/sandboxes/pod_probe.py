"""Proves, from inside a pod of its own, that a cluster isolates and that limits bite. A pod's memory is fixed when it
is made, so the pod that proves it is made small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from codeagent.sandboxes.probe import facts_inside, opened, proven, run_python
from codeagent.sandboxes.protocol import ExecSpec, Limits, ProbeReport, Reason, SandboxDriver, Workspace
from codeagent.sandboxes.streams import discard

_PROBE_SECONDS = 180.0
_PROGRAM = Path(__file__).with_name("inside") / "pod_facts.py"
_SMALL = Limits(
    memory_bytes=64 << 20, workspace_bytes=16 << 20, workspace_inodes=1000, tmp_bytes=8 << 20, wall_seconds=20.0
)
_MEMORY_PROGRAM = "x = bytearray(512 << 20)"
_FEW = 16
_PIDS_PROGRAM = """
import os, time
made = 0
for made in range(128):
    try:
        child = os.fork()
    except BlockingIOError:
        break
    if child == 0:
        os.close(1)
        os.close(2)
        time.sleep(30)
        os._exit(0)
else:
    made = 128
print(made, flush=True)
"""


async def prove(driver: SandboxDriver, address: str, version: str) -> ProbeReport:
    """`address` is the API server's. Raises `SandboxUnavailable` with everything that was not proven, within three
    minutes."""
    return await proven(driver, version, _look(driver, address), _PROBE_SECONDS)


async def _look(driver: SandboxDriver, address: str) -> dict[str, bool]:
    workspace = await opened(driver, _SMALL)
    try:
        server = urlsplit(address)
        port = str(server.port or {"http": 80, "https": 443}[server.scheme])
        facts = await facts_inside(driver, workspace, _PROGRAM, _SMALL, str(server.hostname), port)
        return facts | await _limits(driver, workspace)
    finally:
        await driver.close(workspace)


async def _limits(driver: SandboxDriver, workspace: Workspace) -> dict[str, bool]:
    slow = await driver.run(workspace, ExecSpec(("sleep", "30"), limits=replace(_SMALL, wall_seconds=0.5)), discard)
    many = await run_python(driver, workspace, _PIDS_PROGRAM, replace(_SMALL, processes=_FEW))
    large = await run_python(driver, workspace, _MEMORY_PROGRAM, _SMALL)
    made = many.stdout.strip()
    return {
        "wall_time_limited": slow.reason is Reason.TIMEOUT,
        "processes_limited": made.isdigit() and 0 < int(made) <= _FEW,
        "memory_limited": large.reason is Reason.OOM,
    }
