"""Forgets what is no longer needed, a bounded batch at a time, so that nothing else waits behind it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from codeagent.errors import CodeAgentError
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_AT_ONCE = 1_000


class RetentionLoop:
    """Removes submissions older than `keep`, every `every_seconds`. Several may run at once: they share the work."""

    def __init__(self, submissions: SubmissionLedger, *, keep: timedelta, every_seconds: float) -> None:
        self._submissions = submissions
        self._keep = keep
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
        removed = 0
        while found := await self._submissions.forget(self._keep, MOST_AT_ONCE):
            removed += found
        if removed:
            log.info("submissions.forgotten", count=removed)
        return removed

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
