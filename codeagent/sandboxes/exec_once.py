"""Runs a single command in a workspace made for it, from a directory that is copied in and never written to."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from codeagent.sandboxes import archives
from codeagent.sandboxes.protocol import (
    DEFAULT_TOOLCHAIN,
    ExecRecord,
    ExecSpec,
    Limits,
    OutputSink,
    SandboxDriver,
    SandboxFailure,
    Toolchain,
    Workspace,
)
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.uninterrupted import in_thread


async def exec_once(  # noqa: PLR0913  every argument is one option of a command line
    driver: SandboxDriver,
    workspace_dir: Path | None,
    argv: Sequence[str],
    timeout_seconds: float,
    limits: Limits,
    env: Mapping[str, str],
    sink: OutputSink = discard,
    stop: asyncio.Event | None = None,
    *,
    toolchain: Toolchain = DEFAULT_TOOLCHAIN,
) -> ExecRecord:
    """The record of `argv`, run in a copy of `workspace_dir` (or in an empty directory) with `limits`, but for at most
    `timeout_seconds`, and until `stop` is set: then its reason is `canceled`. Nothing is left behind. Raises
    `SandboxFailure` and `SandboxUnavailable`, and `CancelledError` where it was stopped before it was started."""
    await driver.probe()
    with tempfile.TemporaryDirectory(prefix="codeagent-exec-") as scratch:
        archive = Path(scratch, "workspace.tar.gz")
        source = Path(scratch, "empty") if workspace_dir is None else workspace_dir
        await in_thread(_pack, source, archive, limits)
        workspace = await driver.open(f"exec-{secrets.token_hex(8)}", archive, b"", limits, toolchain)
    try:
        if stop is not None and stop.is_set():
            raise asyncio.CancelledError
        spec = ExecSpec(tuple(argv), env=env, limits=replace(limits, wall_seconds=timeout_seconds))
        if stop is None:
            return await driver.run(workspace, spec, sink)
        return await _until(stop, driver, workspace, driver.run(workspace, spec, sink))
    finally:
        await driver.close(workspace)


async def _until(
    stop: asyncio.Event, driver: SandboxDriver, workspace: Workspace, command: Awaitable[ExecRecord]
) -> ExecRecord:
    running, stopping = asyncio.ensure_future(command), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            # What runs in a workspace that is closed is canceled, and its record has what it wrote until then.
            await driver.close(workspace)
        return await running
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)


def _pack(source: Path, archive: Path, limits: Limits) -> None:
    if source.parent == archive.parent:
        source.mkdir()
    try:
        archives.pack(source, archive, limits)
    except OSError as error:
        raise SandboxFailure(
            f"{source} cannot be read: {error.strerror}", reason="bad_path", retryable=False
        ) from error
