"""Looks every few seconds whether a budget's threshold has been reached, and has it told."""

from __future__ import annotations

from codeagent.budgets.thresholds import announce_thresholds
from codeagent.eventlog.database import Database
from codeagent.rounds import Rounds
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


class BudgetNotices:
    """Any number may run: each fact is written once."""

    def __init__(self, database: Database, *, every_seconds: float = 5.0) -> None:
        self._database = database
        self._every = every_seconds
        self._rounds = Rounds("budgets", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        if told := await announce_thresholds(self._database):
            log.info("budgets.thresholds_reached", count=told)
        return self._every
