"""The regular rounds: resend what is due, fire timers, measure the ledgers. Run by the relay and by every worker."""

from __future__ import annotations

import random

from codeagent.eventlog.sweep import Sweeper
from codeagent.relay.outbox import OutboxPublisher
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics

_MANY = 200
"""After so much there is likely more."""


class SweepLoop:
    """Sweeps every `every_seconds`, without a leader: rows are taken under `SKIP LOCKED`."""

    def __init__(self, outbox: OutboxPublisher, sweeper: Sweeper, *, every_seconds: float, measure: bool) -> None:
        self._outbox = outbox
        self._sweeper = sweeper
        self._every = every_seconds
        self._measure = measure
        self._rounds = Rounds("sweep", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        found = await self._outbox.sweep()
        if self._measure:
            await self._observe()
        if found >= _MANY:
            return 0.0
        # Spread out, so that many processes do not all look at the same moment.
        return self._every * random.uniform(0.8, 1.2)  # noqa: S311  not for secrets

    async def _observe(self) -> None:
        pending, age, effects = await self._sweeper.pending()
        metrics.OUTBOX_PENDING.set(pending)
        metrics.OUTBOX_LAG.set(age)
        metrics.EFFECTS_PENDING.set(effects)
