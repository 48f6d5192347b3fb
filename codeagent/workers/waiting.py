"""What is not given up because the database or a store is away: it is tried again until they have answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from codeagent.errors import Unavailable
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

Answer = TypeVar("Answer")
LONGEST_WAIT_SECONDS = 5.0


async def until_available(act: Callable[[], Awaitable[Answer]], waits: str) -> Answer:
    """What `act` returns, tried again for as long as it raises `Unavailable`, each time logged as `waits`."""
    delay = 0.1
    while True:
        try:
            return await act()
        except Unavailable as error:
            log.warning(waits, code=error.code, error=error.detail, retry_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_WAIT_SECONDS)
