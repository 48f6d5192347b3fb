"""Takes what consumers could not handle from the dead-letter topics into the database, where operators find it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from codeagent.broker.dead_letters import Origin, read_failed
from codeagent.broker.lanes import Record
from codeagent.dead_letters import tables
from codeagent.dead_letters.keeping import keep
from codeagent.encryption import SecretBox
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

GROUP = "dead-letters"
MOST_IN_FLIGHT = 16
"""Records may be of a megabyte each, and wait here while the database is away."""
_LONGEST_WAIT_SECONDS = 5.0


class DeadLetterKeeper:
    """Handles each record of the topics in `origins` until its row is there, whatever that takes: the offset is
    committed after it. `database` owns the tables."""

    def __init__(self, database: Database, box: SecretBox | None, origins: Mapping[str, Origin]) -> None:
        self._database = database
        self._box = box
        self._origins = origins

    async def __call__(self, record: Record) -> None:
        failed, delay = read_failed(record, self._origins[record.topic]), 0.1
        while True:
            try:
                kept = await keep(self._database, self._box, failed)
            except Unavailable as error:
                log.warning("dead_letter.waits", topic=record.topic, error=error.detail)
            except Exception as error:
                # Not its traceback: what the database refuses, it repeats.
                log.error("dead_letter.not_kept", topic=record.topic, offset=record.offset, error=type(error).__name__)
            else:
                break
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_WAIT_SECONDS)
        if kept is not None:
            metrics.DEAD_LETTERS_KEPT.labels(failed.origin.topic).inc()
            log.warning("dead_letter.kept", letter_id=kept, topic=failed.origin.topic, group=failed.origin.group)

    async def measure(self) -> None:
        waiting, age = await tables.standing(self._database)
        metrics.DEAD_LETTERS_OPEN.set(waiting)
        metrics.DEAD_LETTERS_OLDEST.set(age)
