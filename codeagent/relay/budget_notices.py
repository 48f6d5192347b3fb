"""Looks every few seconds whether a budget's threshold has been reached, and has it told."""

from __future__ import annotations

import asyncio

from codeagent.budgets.thresholds import announce_thresholds
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Database
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


class BudgetNotices:
    """Any number may run: each fact is written once."""

    def __init__(self, database: Database, *, every_seconds: float = 5.0) -> None:
        self._database = database
        self._every = every_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                if told := await announce_thresholds(self._database):
                    log.info("budgets.thresholds_reached", count=told)
            except CodeAgentError as error:
                log.warning("budgets.not_looked_at", error=error.detail)
            except Exception:
                log.exception("budgets.failed")
            await asyncio.sleep(self._every)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
