"""Breakers of a worker and the log: what they do is told there, and a worker that starts goes on from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from datetime import timedelta

from codeagent import clock
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.ids import INSTALLATION
from codeagent.messages.provider_events import BreakerChanged, BreakerClosed, BreakerHalfOpened, BreakerOpened
from codeagent.provider_registry import tables
from codeagent.providers.breaker import Breaker, Transition
from codeagent.rounds import Rounds

_FACTS: dict[str, type[BreakerChanged]] = {
    "open": BreakerOpened,
    "half-open": BreakerHalfOpened,
    "closed": BreakerClosed,
}
_TYPES = [fact.NAME for fact in _FACTS.values()]
REPORT_SECONDS = 5.0
FORGOTTEN_AFTER = timedelta(minutes=10)
MOST_WAITING = 1_000
"""Transitions that wait for the database; beyond it the oldest go."""


class BreakerJournal:
    """Writes what breakers do, in order, as soon as the database takes it; and every few seconds how they stand."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._author = Author(INSTALLATION, "system", worker, clock.new_uuid())
        self._worker = worker
        self._waiting: deque[Transition] = deque(maxlen=MOST_WAITING)
        self._heard = asyncio.Event()
        self._breakers: dict[str, Breaker] = {}
        self._rounds = [Rounds("breakers", self._write), Rounds("provider_health", self._report)]

    def heard(self, transition: Transition) -> None:
        """Of a breaker that has changed."""
        self._waiting.append(transition)
        self._heard.set()

    async def follow(self, breakers: Iterable[Breaker]) -> None:
        """Opens those whose provider was given up, by whichever worker, less than their own pause ago; those of a
        provider that was about to be tried again let one call go first."""
        self._breakers = {breaker.name: breaker for breaker in breakers}
        for row in await tables.last_of(self._database, list(self._breakers), _TYPES):
            if row["event_type"] == BreakerOpened.NAME:
                self._breakers[row["provider"]].restore_open(row["age"].total_seconds())
            elif row["event_type"] == BreakerHalfOpened.NAME:
                self._breakers[row["provider"]].restore_half_open()

    async def start(self) -> None:
        for rounds in self._rounds:
            await rounds.start()

    async def stop(self) -> None:
        for rounds in self._rounds:
            await rounds.stop()
        with contextlib.suppress(Unavailable):
            await self._write_waiting()

    async def _write(self) -> float:
        await self._heard.wait()
        await self._write_waiting()
        if not self._waiting:
            self._heard.clear()
        return 0.0

    async def _write_waiting(self) -> None:
        while self._waiting:
            change = self._waiting[0]
            fact = _FACTS[change.new](provider=change.breaker, worker=self._worker, reason=change.reason)
            async with self._control.change(self._author) as writing:
                await tables.append(writing, change.breaker, fact)
            self._waiting.popleft()

    async def _report(self) -> float:
        standings = {name: breaker.standing for name, breaker in self._breakers.items()}
        await tables.report(self._database, self._worker, standings, FORGOTTEN_AFTER)
        return REPORT_SECONDS
