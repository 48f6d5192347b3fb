"""Reading the whole log in order, for those who keep rows of it: their place commits together with their rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog, cursor_of
from codeagent.eventlog.stored import StoredEvent
from codeagent.rounds import Rounds

# Whether there is something to take: all that an idle follower asks. As in `EventLog.read_all`, without the events.
_BEHIND = """
SELECT EXISTS (SELECT FROM events e
               WHERE (e.transaction_id, e.global_position)
                     > (coalesce(p.transaction_id, '0'::xid8), coalesce(p.global_position, 0))
                     AND e.transaction_id < pg_snapshot_xmin(pg_current_snapshot()))
FROM (SELECT 1) one LEFT JOIN projections p ON p.name = $1"""


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
        self._taken: Cursor | None = None  # where this follower's own last page ended
        self._rebuilt_at: datetime | None = None
        self._rounds = Rounds("projection", self._round, projection=self.NAME)

    @abstractmethod
    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        """Writes the rows of one page, in the transaction that moves the place in the log past it."""

    def interrupted(self) -> None:  # noqa: B027  most remember nothing
        """Called where pages may have been taken elsewhere, or were not committed: what was remembered is stale."""

    async def start(self) -> None:
        await self._rounds.start()

    async def _round(self) -> float:
        return 0.0 if await self.catch_up() else self._idle

    async def catch_up(self, most: int = 500) -> int:
        """Takes one page of the log; returns how many events that were."""
        [[behind]] = await self._database.fetch(_BEHIND, self.NAME)
        if not behind:
            return 0
        try:
            page = await self._take_page(most)
        except BaseException:
            self._forget()
            raise
        if page:
            self._taken = cursor_of(page[-1])
        return len(page)

    async def _take_page(self, most: int) -> Sequence[StoredEvent]:
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", self.LOCK):
                self._forget()
                return ()
            # Locked: whoever removes it, to have the rows made anew, does so between two pages.
            row = await connection.fetchrow(
                "SELECT transaction_id::text AS tid, global_position, rebuilt_at FROM projections "
                "WHERE name = $1 FOR UPDATE",
                self.NAME,
            )
            place = Cursor() if row is None else Cursor(int(row["tid"]), row["global_position"])
            rebuilt_at = None if row is None else row["rebuilt_at"]
            if place != self._taken or rebuilt_at != self._rebuilt_at:
                # Another follower was here since, between two looks of ours, or the rows were made anew.
                self._forget()
                self._rebuilt_at = rebuilt_at
            page = await self._log.read_all(place, most, connection=connection)
            if page:
                await self.take(connection, page)
                await self._move(connection, cursor_of(page[-1]))
            return page

    def _forget(self) -> None:
        self._taken = None
        self.interrupted()

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
        await self._rounds.stop()
