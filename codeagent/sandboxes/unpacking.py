"""Unpacks an archive beside everything else, and stops when nobody waits for it any more."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from codeagent.sandboxes.archives import Unpacker
from codeagent.sandboxes.protocol import Limits, SandboxFailure
from codeagent.sandboxes.uninterrupted import in_stoppable_thread


async def unpack(unpacker: Unpacker, archive: Path, limits: Limits) -> None:
    """Nothing is written any more when it returns or raises. Raises `SandboxFailure`."""
    try:
        await in_stoppable_thread(partial(unpacker.unpack, archive, limits))
    except OSError as error:
        raise SandboxFailure(f"the archive cannot be read: {error.strerror}") from error
