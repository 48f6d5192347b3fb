"""Goes on with the erasures that have begun, each a step further at every look."""

from __future__ import annotations

from codeagent import clock
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Database
from codeagent.privacy import tables
from codeagent.privacy.content_erasure import ContentErasure
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


class Erasures:
    """Any number may run: every step may be taken twice. `database` sees all tenants."""

    def __init__(self, database: Database, erasure: ContentErasure, *, every_seconds: float = 1.0) -> None:
        self._database = database
        self._erasure = erasure
        self._every = every_seconds
        self._rounds = Rounds("erasures", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        await self.look()
        return self._every

    async def look(self) -> int:
        """How many are not completed yet. One that cannot go on holds up no other."""
        waiting = await tables.at_work(self._database)
        oldest = max((clock.now() - erasure.begun_at for erasure in waiting), default=None)
        metrics.ERASURE_AGE.set(0.0 if oldest is None else oldest.total_seconds())
        open_ones = 0
        for erasure in waiting:
            try:
                completed = await self._erasure.advance(erasure)
            except CodeAgentError as error:
                log.warning("erasure.waits", request_id=erasure.id, error=error.detail)
                completed = False
            except Exception:
                log.exception("erasure.failed", request_id=erasure.id)
                completed = False
            if completed:
                metrics.KEYS_SHREDDED.inc()
                log.info("erasure.completed", request_id=erasure.id)
            open_ones += not completed
        return open_ones
