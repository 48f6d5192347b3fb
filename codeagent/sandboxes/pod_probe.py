"""Proves, from inside a pod of its own, that a cluster isolates and that limits bite. A pod's memory is fixed when it
is made, so the pod that proves it is made small."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from codeagent.sandboxes import archives
from codeagent.sandboxes.protocol import (
    ExecRecord,
    ExecSpec,
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
    """Raises `SandboxUnavailable` with everything that was not proven, within three minutes."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            facts = await _look(driver, address)
    except SandboxFailure as failure:
        raise SandboxUnavailable([f"a pod cannot be used: {failure}"]) from failure
    except TimeoutError:
        raise SandboxUnavailable([f"a pod was not proven within {_PROBE_SECONDS:g} s"]) from None
    missed = [f"not proven: {name.replace('_', ' ')}" for name, holds in facts.items() if not holds]
    if missed:
        raise SandboxUnavailable(missed)
    return ProbeReport(driver=driver.name, version=version, level=driver.level, facts=facts)


async def _look(driver: SandboxDriver, address: str) -> dict[str, bool]:
    workspace = await _open(driver)
    try:
        server = urlsplit(address)
        port = str(server.port or {"http": 80, "https": 443}[server.scheme])
        program = await in_thread(_PROGRAM.read_text, encoding="utf-8")
        answer = await _run(driver, workspace, program, _SMALL, str(int(driver.level)), str(server.hostname), port)
        if answer.reason is not Reason.OK:
            words = answer.detail or answer.stderr.decode("utf-8", "replace")[-300:]
            raise SandboxUnavailable([f"a pod cannot be used ({answer.reason}): {words.strip()}"])
        facts = {str(name): bool(holds) for name, holds in json.loads(answer.stdout).items()}
        return facts | await _limits(driver, workspace)
    finally:
        await driver.close(workspace)


async def _limits(driver: SandboxDriver, workspace: Workspace) -> dict[str, bool]:
    slow = await driver.run(workspace, ExecSpec(("sleep", "30"), limits=replace(_SMALL, wall_seconds=0.5)), discard)
    many = await _run(driver, workspace, _PIDS_PROGRAM, replace(_SMALL, processes=_FEW))
    large = await _run(driver, workspace, _MEMORY_PROGRAM, _SMALL)
    made = many.stdout.strip()
    return {
        "wall_time_limited": slow.reason is Reason.TIMEOUT,
        "processes_limited": made.isdigit() and 0 < int(made) <= _FEW,
        "memory_limited": large.reason is Reason.OOM,
    }


async def _open(driver: SandboxDriver) -> Workspace:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "empty.tar.gz")
        await in_thread(archives.pack_files, {}, archive, _SMALL)
        return await driver.open(f"probe-{secrets.token_hex(8)}", archive, b"", _SMALL)


async def _run(driver: SandboxDriver, workspace: Workspace, program: str, limits: Limits, *words: str) -> ExecRecord:
    return await driver.run(workspace, ExecSpec(("python3", "-I", "-c", program, *words), limits=limits), discard)
