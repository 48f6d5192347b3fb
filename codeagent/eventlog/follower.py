"""Reading the whole log in order, for those who keep rows of it: their place commits together with their rows."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from codeagent import clock
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog, cursor_of
from codeagent.eventlog.stored import StoredEvent
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


class LogFollower(ABC):
    """Gives every event to `take` once, page by page. Any number may run under one name; an advisory lock lets one
    work while the others stand by."""

    NAME: ClassVar[str]
    """Of its row in `projections`, and in metrics and logs."""
    LOCK: ClassVar[int]
    """Any fixed number that no other follower has."""

    def __init__(self, database: Database, log_reader: EventLog, *, idle_seconds: float = 0.25) -> None:
        self._database = database
        self._log = log_reader
        self._idle = idle_seconds
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        """Writes the rows of one page, in the transaction that moves the place in the log past it."""

    def interrupted(self) -> None:  # noqa: B027  most remember nothing
        """Called where pages may have been taken elsewhere, or were not committed: what was remembered is stale."""

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                read = await self.catch_up()
            except CodeAgentError as error:
                log.warning("projection.waits", projection=self.NAME, error=error.detail)
                self.interrupted()
                read = 0
            except Exception:
                log.exception("projection.failed", projection=self.NAME)
                self.interrupted()
                read = 0
            if read == 0:
                await asyncio.sleep(self._idle)

    async def catch_up(self, most: int = 500) -> int:
        """Takes one page of the log; returns how many events that were."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", self.LOCK):
                self.interrupted()
                return 0
            row = await connection.fetchrow(
                "SELECT transaction_id::text AS tid, global_position FROM projections WHERE name = $1", self.NAME
            )
            cursor = Cursor() if row is None else Cursor(int(row["tid"]), row["global_position"])
            page = await self._log.read_all(cursor, most)
            if not page:
                return 0
            await self.take(connection, page)
            await self._move(connection, cursor_of(page[-1]))
        metrics.PROJECTION_LAG.labels(self.NAME).set((clock.now() - page[-1].occurred_at).total_seconds())
        return len(page)

    async def _move(self, connection: Connection, end: Cursor) -> None:
        await connection.execute(
            """INSERT INTO projections (name, transaction_id, global_position) VALUES ($1, $2::text::xid8, $3)
               ON CONFLICT (name) DO UPDATE SET transaction_id = excluded.transaction_id,
                   global_position = excluded.global_position""",
            self.NAME,
            str(end.transaction_id),
            end.global_position,
        )

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
