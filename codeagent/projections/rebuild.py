"""Making a projection's rows anew from the log while it is at work, and saying how the ones that are read differ."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.projections.comparison import Difference, compare, put_right
from codeagent.projections.projection import Projection
from codeagent.projections.shadow import Shadow, follow, shadowed


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """`events` is how many of the log the rows were made of, `differences` how those that were read differed, as of
    the same place in the log; empty where they did not."""

    kind: type[Projection]
    events: int
    differences: Sequence[Difference]


async def make_anew(
    database: Database, kinds: Sequence[type[Projection]], *, swap: bool
) -> AsyncGenerator[Rebuilt, None]:
    """Makes the rows of projections a second time beside them, compares, and with `swap` puts them in their places.
    The log is read once for all of them.

    Relays go on meanwhile. They stand by only for the end of each, while what they have taken since is taken here as
    well, and the rows are compared: seconds for a million rows. Of a projection that has no place in the log, since it
    is new or was removed, the rows are made up to the log's end. Raises `Unavailable`; until its end nothing of a
    projection has changed.
    """
    async with shadowed(database, kinds) as session:
        log = EventLog(database)
        shadows = [Shadow(session, database, kind) for kind in kinds]
        await follow(session, log, {shadow: await place_of(session, shadow.kind) for shadow in shadows})
        for shadow in shadows:
            async with standing_by(session, shadow.kind):
                await follow(session, log, {shadow: await place_of(session, shadow.kind)})
                differences = await compared(session, shadow.kind)
                if swap:
                    await _swap(session, shadow, differences)
            yield Rebuilt(shadow.kind, shadow.events, differences)


@asynccontextmanager
async def standing_by(session: Connection, kind: type[Projection]) -> AsyncIterator[None]:
    """Relays stand by: the projection stays where it is. The lock is the session's: a transaction with an id of its own
    would hold up all who read the log."""
    await session.execute("SELECT pg_advisory_lock($1)", kind.LOCK)
    try:
        yield
    finally:
        await session.execute("SELECT pg_advisory_unlock($1)", kind.LOCK)


async def compared(session: Connection, kind: type[Projection]) -> Sequence[Difference]:
    """Of the tables that are not as those of the session that cover them."""
    found = []
    for kept in kind.KEEPS:
        await session.execute(f"ANALYZE pg_temp.{kept.table}")  # nobody else does, and plans go by it
        found.append(await compare(session, kept))
    return [each for each in found if each]


async def _swap(session: Connection, shadow: Shadow, differences: Sequence[Difference]) -> None:
    async with session.transaction():
        wrong = {difference.table for difference in differences}
        for kept in shadow.kind.KEEPS:
            if kept.table in wrong:
                await put_right(session, kept)
        await _swapped(session, shadow.kind, shadow.place)


async def place_of(session: Connection, kind: type[Projection]) -> Cursor | None:
    """How far the projection is; None for one that has not begun."""
    row = await session.fetchrow(
        "SELECT transaction_id::text AS tid, global_position FROM projections WHERE name = $1", kind.NAME
    )
    return None if row is None else Cursor(int(row["tid"]), row["global_position"])


async def _swapped(session: Connection, kind: type[Projection], place: Cursor) -> None:
    """Tells the relay that what it remembers of the rows is of others, and where they end: that is where it was, unless
    somebody has moved its place to where no event is."""
    await session.execute(
        """INSERT INTO projections (name, transaction_id, global_position, rebuilt_at)
           VALUES ($1, $2::text::xid8, $3, clock_timestamp())
           ON CONFLICT (name) DO UPDATE SET transaction_id = excluded.transaction_id,
               global_position = excluded.global_position, rebuilt_at = excluded.rebuilt_at""",
        kind.NAME,
        str(place.transaction_id),
        place.global_position,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a projection is. `behind_seconds` is the age of the oldest event it has not taken, 0 where there is
    none."""

    name: str
    place: Cursor
    behind_seconds: float
    rebuilt_at: datetime | None


async def standings(database: Database) -> Sequence[Standing]:
    """Of all that have begun."""
    rows = await database.fetch(
        "SELECT s.*, p.rebuilt_at FROM projections_v1() s JOIN projections p ON p.name = s.name ORDER BY s.name"
    )
    return [
        Standing(
            row["name"],
            Cursor(int(row["transaction_id"]), row["global_position"]),
            max(row["behind_seconds"], 0.0),
            row["rebuilt_at"],
        )
        for row in rows
    ]
