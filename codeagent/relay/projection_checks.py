"""Looks at a run now and then, whether what is kept of it is what the log says, and raises the alarm if not."""

from __future__ import annotations

from codeagent.eventlog.database import Database
from codeagent.projections.sampling import look_at_any
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


class ProjectionChecks:
    """Any number may run. `database` sees all tenants. It changes nothing: `codeagent projections rebuild` does."""

    def __init__(self, database: Database, *, every_seconds: float = 60.0) -> None:
        self._database = database
        self._every = every_seconds
        self._rounds = Rounds("projection_checks", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        await self.look()
        return self._every

    async def look(self) -> None:
        found = await look_at_any(self._database)
        if found is None:
            return
        metrics.PROJECTION_SAMPLES.inc()
        for projection, difference in found.wrong:
            metrics.PROJECTION_MISMATCHES.labels(projection).inc()
            log.error("projection.mismatch", projection=projection, table=difference.table, run_id=found.run_id)
