"""What a process does again and again until it is stopped, beside what it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from codeagent.errors import CodeAgentError
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.25
MOST_PAUSE_SECONDS = 2.0


class Rounds:
    """Calls `once`, which returns how many seconds to pause before it is called again.

    Whatever a round raises is logged (`<name>.waits` for what is expected to pass, `<name>.failed` for a bug, with all
    of `told`) and the next one comes: after a quarter of a second, after twice as long with each failure in a row, up
    to two seconds. So a server that is away is not pressed, and is found soon when it is back.
    """

    def __init__(self, name: str, once: Callable[[], Awaitable[float]], **told: str) -> None:
        self._name = name
        self._once = once
        self._told = told
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        after_failure = FIRST_PAUSE_SECONDS
        while True:
            try:
                pause = await self._once()
                after_failure = FIRST_PAUSE_SECONDS
            except Exception as error:
                self._log(error)
                pause, after_failure = after_failure, min(after_failure * 2, MOST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    def _log(self, error: Exception) -> None:
        if isinstance(error, CodeAgentError):
            log.warning(f"{self._name}.waits", error=error.detail, **self._told)
        else:
            log.error(f"{self._name}.failed", exc_info=error, **self._told)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
