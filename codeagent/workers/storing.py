"""Putting away what work has brought, also while the artifact store has no room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from codeagent.messages.executions import OutputTold
from codeagent.sandboxes.protocol import ExecRecord
from codeagent.workers.exec_facts import output_told
from codeagent.workers.waiting import until_available

Stored = TypeVar("Stored")


async def until_stored(put: Callable[[], Awaitable[Stored]]) -> Stored:
    """What `put` returns, tried again for as long as the store is `Unavailable`.

    Work that is done is not done again because a disk is full: a command may not be run twice, a model call is paid
    for. The claim is renewed meanwhile and its slot stays taken, so that no more work is begun; a cancel, the run's
    deadline or a lost claim end the wait.
    """
    return await until_available(put, "artifact.waits")


class Kept(Protocol):
    """Of the artifact store, what outputs are kept by."""

    async def put(self, tenant_id: str, data: bytes) -> str: ...


async def stored_outputs(files: Kept, tenant_id: str, record: ExecRecord | None) -> list[OutputTold | None]:
    """What the log says of standard output and standard error. All of what does not fit there is stored."""
    told: list[OutputTold | None] = []
    if record is None:
        return [None, None]
    for kept, seen_bytes in ((record.stdout, record.stdout_seen_bytes), (record.stderr, record.stderr_seen_bytes)):
        output = await asyncio.to_thread(output_told, kept, seen_bytes)
        if output.ref is not None:
            await until_stored(partial(files.put, tenant_id, kept))
        told.append(output)
    return told
