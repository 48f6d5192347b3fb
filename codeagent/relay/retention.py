"""Forgets what is no longer needed, a bounded batch at a time, so that nothing else waits behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from codeagent.errors import CodeAgentError
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_AT_ONCE = 1_000
Forget = Callable[[int], Awaitable[int]]
"""Removes at most so many rows, and returns how many it did."""


class RetentionLoop:
    """Calls each of `forgetters` until it finds nothing more, every `every_seconds`. Several loops may run at once:
    they share the work."""

    def __init__(self, forgetters: Mapping[str, Forget], *, every_seconds: float) -> None:
        self._forgetters = forgetters
        self._every = every_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self.round()
            except CodeAgentError as error:
                log.warning("retention.waits", error=error.detail)
            except Exception:
                log.exception("retention.failed")
            await asyncio.sleep(self._every)

    async def round(self) -> int:
        """Removes all that is due; returns how much that was."""
        total = 0
        for name, forget in self._forgetters.items():
            removed = 0
            while found := await forget(MOST_AT_ONCE):
                removed += found
            if removed:
                log.info("retention.forgotten", what=name, count=removed)
            total += removed
        return total

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
