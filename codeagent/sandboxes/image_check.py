"""Tries images: whether commands can be run in each, and whether it has what the agent's tools run."""

from __future__ import annotations

from collections.abc import Iterable

from codeagent.sandboxes.exec_once import exec_once
from codeagent.sandboxes.outcome import last_words
from codeagent.sandboxes.protocol import Limits, Reason, SandboxDriver, SandboxFailure, Toolchain

_ROOM = Limits(workspace_bytes=16 << 20, workspace_inodes=1000, tmp_bytes=16 << 20)
_SECONDS = 10.0
_TRIAL = "[ -x /bin/bash ] || echo /bin/bash; command -v grep >/dev/null || echo grep"


async def faults_of(driver: SandboxDriver, images: Iterable[str]) -> dict[str, str]:
    """Of each image, why it does not serve; empty where it does."""
    return {image: await _fault(driver, image) for image in images}


async def _fault(driver: SandboxDriver, image: str) -> str:
    try:
        command = ("/bin/sh", "-c", _TRIAL)
        record = await exec_once(driver, None, command, _SECONDS, _ROOM, {}, toolchain=Toolchain(image=image))
    except SandboxFailure as failure:
        return failure.detail
    if record.reason is not Reason.OK:
        why = record.detail or last_words(record.stderr)
        return f"it does not run /bin/sh ({record.reason}): {why}"
    lacking = record.stdout.decode("utf-8", "replace").split()
    return f"it lacks {' and '.join(lacking)}, which the agent's tools run" if lacking else ""
