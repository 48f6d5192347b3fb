"""Runs a single command in a workspace made for it, from a directory that is copied in and never written to."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from codeagent.sandboxes import archives
from codeagent.sandboxes.protocol import ExecRecord, ExecSpec, Limits, OutputSink, SandboxDriver, SandboxFailure
from codeagent.sandboxes.streams import discard
from codeagent.sandboxes.uninterrupted import in_thread


async def exec_once(  # every argument is one option of a command line
    driver: SandboxDriver,
    workspace_dir: Path | None,
    argv: Sequence[str],
    timeout_seconds: float,
    limits: Limits,
    env: Mapping[str, str],
    sink: OutputSink = discard,
) -> ExecRecord:
    """The record of `argv`, run in a copy of `workspace_dir` (or in an empty directory) with `limits`, but for at most
    `timeout_seconds`. Nothing is left behind. Raises `SandboxFailure` and `SandboxUnavailable`."""
    await driver.probe()
    with tempfile.TemporaryDirectory(prefix="codeagent-exec-") as scratch:
        archive = Path(scratch, "workspace.tar.gz")
        source = Path(scratch, "empty") if workspace_dir is None else workspace_dir
        await in_thread(_pack, source, archive, limits)
        workspace = await driver.open(f"exec-{secrets.token_hex(8)}", archive, b"", limits)
    try:
        bounded = replace(limits, wall_seconds=timeout_seconds)
        return await driver.run(workspace, ExecSpec(tuple(argv), env=env, limits=bounded), sink)
    finally:
        await driver.close(workspace)


def _pack(source: Path, archive: Path, limits: Limits) -> None:
    if source.parent == archive.parent:
        source.mkdir()
    try:
        archives.pack(source, archive, limits)
    except OSError as error:
        raise SandboxFailure(
            f"{source} cannot be read: {error.strerror}", reason="bad_path", retryable=False
        ) from error
