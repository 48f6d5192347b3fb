"""`codeagent sandbox exec`: one command in a sandbox of its own, without any server."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from codeagent.sandboxes.exec_once import exec_once
from codeagent.sandboxes.offers import Host
from codeagent.sandboxes.protocol import ExecRecord, IsolationLevel, Limits, Reason, SandboxUnavailable
from codeagent.sandboxes.select import choose_driver

NOT_RUN = 125
"""Exit status when the command did not run, as other launchers have it."""


def exec_in_sandbox(
    command: tuple[str, ...],
    workspace: Path | None,
    timeout_seconds: float,
    level: int,
    state_dir: Path | None,
    driver_name: str,
    *,
    as_json: bool,
) -> int:
    """The command's own exit status; 124 after a timeout, 125 when it did not run."""

    async def execute(folder: Path) -> ExecRecord:
        driver = await choose_driver(IsolationLevel(level), None, Host(folder), driver_name)
        try:
            return await exec_once(driver, workspace, command, timeout_seconds, Limits(), {})
        finally:
            await driver.shutdown()

    try:
        if state_dir is not None:
            record = asyncio.run(execute(state_dir))
        else:
            with tempfile.TemporaryDirectory(prefix="codeagent-sandbox-") as folder:
                Path(folder).chmod(0o711)
                record = asyncio.run(execute(Path(folder)))
    except SandboxUnavailable as error:
        for reason in error.reasons:
            sys.stderr.write(f"codeagent: {reason}\n")
        return NOT_RUN
    _show(record, as_json=as_json)
    if record.reason is Reason.TIMEOUT:
        return 124
    return record.exit_code if record.exit_code is not None else NOT_RUN


def _show(record: ExecRecord, *, as_json: bool) -> None:
    if not as_json:
        sys.stdout.buffer.write(record.stdout)
        sys.stderr.buffer.write(record.stderr)
        return
    sys.stdout.write(
        json.dumps(
            {
                "reason": record.reason.value,
                "exit_code": record.exit_code,
                "stdout": record.stdout.decode(errors="replace"),
                "stderr": record.stderr.decode(errors="replace"),
                "limits_hit": list(record.limits_hit),
                "rusage": {
                    "wall_seconds": record.wall_seconds,
                    "cpu_seconds": record.cpu_seconds,
                    "peak_memory_bytes": record.peak_memory_bytes,
                },
                "driver": record.driver,
                "level": int(record.level),
            }
        )
        + "\n"
    )
