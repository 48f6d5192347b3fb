"""The regular rounds: resend what is due, fire timers, measure the ledgers. Run by the relay and by every worker."""

from __future__ import annotations

import asyncio
import random

from codeagent.errors import CodeAgentError
from codeagent.eventlog.sweep import Sweeper
from codeagent.relay.outbox import OutboxPublisher
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


class SweepLoop:
    """Sweeps every `every_seconds`, without a leader: rows are taken under `SKIP LOCKED`."""

    def __init__(self, outbox: OutboxPublisher, sweeper: Sweeper, *, every_seconds: float, measure: bool) -> None:
        self._outbox = outbox
        self._sweeper = sweeper
        self._every = every_seconds
        self._measure = measure
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                found = await self._outbox.sweep()
                if self._measure:
                    await self._observe()
            except CodeAgentError as error:
                log.warning("sweep.waits", error=error.detail)
                found = 0
            except Exception:
                log.exception("sweep.failed")
                found = 0
            if found < 200:
                # Spread out, so that many processes do not all look at the same moment.
                await asyncio.sleep(self._every * random.uniform(0.8, 1.2))  # noqa: S311  not for secrets

    async def _observe(self) -> None:
        pending, age, effects = await self._sweeper.pending()
        metrics.OUTBOX_PENDING.set(pending)
        metrics.OUTBOX_LAG.set(age)
        metrics.EFFECTS_PENDING.set(effects)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
