"""Projections' rows made a second time, beside the ones that are read: in temporary tables of the same names.

A session looks for a bare name among its temporary tables first. So a projection's own statements, unchanged, keep
rows that nobody else sees, that are written to no log of the database's, and that go with the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from codeagent.errors import Unreadable
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog, cursor_of
from codeagent.eventlog.sealing import require_keys
from codeagent.eventlog.stored import StoredEvent
from codeagent.projections.projection import Projection

PAGE = 2_000
"""Events: what a run does in one page is one row to write."""
_MEMORY = "SET temp_buffers = '128MB'; SET work_mem = '64MB'"
"""Bounds, of what is used as far as it is needed: rows and what tells them apart are far quicker in memory."""


@asynccontextmanager
async def shadowed(database: Database, kinds: Iterable[type[Projection]]) -> AsyncIterator[Connection]:
    """A session in which the tables of these projections are empty ones of its own; the others are the real ones."""
    async with database.session() as session:
        await session.execute(_MEMORY)
        await cover(session, kinds)
        yield session


async def cover(session: Connection, kinds: Iterable[type[Projection]]) -> None:
    """Of the real tables they have the columns and nothing else: no default, no trigger and no key that somebody may
    have changed there, and no index that nobody here reads by."""
    for kind in kinds:
        for kept in kind.KEEPS:
            await session.execute(
                f"CREATE TEMPORARY TABLE {kept.table} (LIKE public.{kept.table});"
                f"CREATE UNIQUE INDEX ON pg_temp.{kept.table} ({', '.join(kept.key)}) NULLS NOT DISTINCT"
            )
        for table in kind.BESIDE:
            await session.execute(f"CREATE TEMPORARY TABLE {table} (LIKE public.{table} INCLUDING ALL)")


async def uncover(session: Connection) -> None:
    """Drops all temporary tables of the session."""
    await session.execute("DISCARD TEMP")


class Shadow:
    """Rows of one projection in a session where its tables are covered, made of the log from its beginning on."""

    def __init__(self, session: Connection, database: Database, kind: type[Projection]) -> None:
        self.kind = kind
        self.place = Cursor()
        self.events = 0
        self._session = session
        self._projection = kind(database, EventLog(database))

    async def take(self, page: Sequence[StoredEvent]) -> None:
        """The next events."""
        if page:
            await self._projection.take(self._session, page)
            self.place = cursor_of(page[-1])
            self.events += len(page)


async def follow(session: Connection, log: EventLog, wanted: Mapping[Shadow, Cursor | None]) -> None:
    """Gives shadows that are at the same place what comes up to and with their cursors, and where that is None all that
    has committed. The log is read once for all of them."""
    place = min((shadow.place for shadow in wanted), default=Cursor())
    while open_ends := {shadow: end for shadow, end in wanted.items() if end is None or place < end}:
        page = await log.read_all(place, PAGE, connection=session)
        if not page:
            return
        require_keys(
            page
        )  # rows that were made without what belongs to persons would look wrong, and replace right ones
        place = cursor_of(page[-1])
        if len(open_ends) > 1:
            _decode(page)
        async with session.transaction():
            for shadow, end in open_ends.items():
                await shadow.take(page if end is None or place <= end else _upto(page, end))


def _upto(page: Sequence[StoredEvent], end: Cursor) -> Sequence[StoredEvent]:
    return [event for event in page if cursor_of(event) <= end]


def _decode(page: Sequence[StoredEvent]) -> None:
    """Once for all who want an event. What cannot be read is named by those who do."""
    for stored in page:
        with suppress(Unreadable):
            # They are nobody else's yet; copies of them would cost a tenth of the whole.
            object.__setattr__(stored, "event", stored.decode())
