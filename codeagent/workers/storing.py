"""Putting away what work has brought, also while the artifact store has no room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from codeagent.errors import Unavailable
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

Stored = TypeVar("Stored")
LONGEST_WAIT_SECONDS = 5.0


async def until_stored(put: Callable[[], Awaitable[Stored]]) -> Stored:
    """What `put` returns, tried again for as long as the store is `Unavailable`.

    Work that is done is not done again because a disk is full: a command may not be run twice, a model call is paid
    for. The claim is renewed meanwhile and its slot stays taken, so that no more work is begun; a cancel, the run's
    deadline or a lost claim end the wait.
    """
    delay = 0.2
    while True:
        try:
            return await put()
        except Unavailable as error:
            log.warning("artifact.waits", code=error.code, retry_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_WAIT_SECONDS)
