"""Tells how much time is left until an authority has to be told of a breach of personal data."""

from __future__ import annotations

from math import inf

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.privacy.breaches import next_notice
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics


class BreachClock:
    """Any number may run. `database` sees all tenants."""

    def __init__(self, database: Database, *, every_seconds: float = 15.0) -> None:
        self._database = database
        self._every = every_seconds
        self._rounds = Rounds("breaches", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        await self.measure()
        return self._every

    async def measure(self) -> None:
        notify_by = await next_notice(self._database)
        metrics.BREACH_LEFT.set(inf if notify_by is None else (notify_by - clock.now()).total_seconds())
