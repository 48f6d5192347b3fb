"""Reading the log: one stream, the heads of many, or everything in an order that never skips a late commit."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from codeagent.errors import Rejected
from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Connection, Database, Row
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.messages.values import ENDING_EVENTS
from codeagent.subjects.keys import SubjectKeys

_NAMES = (
    "stream_id", "stream_version", "event_id", "event_type", "schema_version", "tenant_id", "key_id", "data",
    "data_digest", "sealed", "sealed_digest", "metadata", "leaf_hash",
)  # fmt: skip


def columns(of: str = "") -> str:
    """What `from_row` reads but for the transaction, of the table that is called `of`, as in `e.`. A moment that no
    event can have is read as none: the driver would not decode it, and the whole page would not be read."""
    moment = f"{of}occurred_at"
    kept = f"CASE WHEN {moment} BETWEEN '0001-01-02Z' AND '9999-12-30Z' THEN {moment} END AS occurred_at"
    return ", ".join((f"{of}global_position", *(f"{of}{name}" for name in _NAMES), kept))


COLUMNS = f"transaction_id::text, {columns()}"

_CURSOR = re.compile(r"([0-9a-f]{1,16})-([0-7]?[0-9a-f]{1,15})")
"""What the database's types can hold, and no more."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the whole log: the pair (transaction id, global position), handed out as one opaque string."""

    transaction_id: int = 0
    global_position: int = 0

    def before(self) -> Cursor:
        """The place that readers come from to whom what stands here is new."""
        return Cursor(self.transaction_id, max(self.global_position - 1, 0))

    def __str__(self) -> str:
        return f"{self.transaction_id:x}-{self.global_position:x}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises `Rejected` with code `malformed_cursor`."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise Rejected("That is not a cursor of this log.", code="malformed_cursor")
        return cls(int(match[1], 16), int(match[2], 16))


class EventLog:
    """The append-only log, for reading. `step` and `effects` append: facts never come without their ledger rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads: Batcher[tuple[str, int, int], list[StoredEvent]] = Batcher(self._read_many, most=20, lanes=4)

    @property
    def subjects(self) -> SubjectKeys:
        """The keys that what it reads is opened with."""
        return self._database.subjects

    async def read_stream(self, stream_id: str, after: int = 0, limit: int = 500) -> Sequence[StoredEvent]:
        """Events with a version above `after`, in order, at most `limit`."""
        return await self._reads((stream_id, after, limit))

    async def _read_many(self, wanted: Sequence[tuple[str, int, int]]) -> Sequence[list[StoredEvent]]:
        rows = await self._database.fetch(
            f"""SELECT w.place, {COLUMNS}
                FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS w (stream, after, most, place)
                CROSS JOIN LATERAL (
                    SELECT * FROM events WHERE stream_id = w.stream AND stream_version > w.after
                    ORDER BY stream_version LIMIT w.most) e
                ORDER BY w.place, stream_version""",  # noqa: S608  constants
            [stream_id for stream_id, _, _ in wanted],
            [after for _, after, _ in wanted],
            [limit for _, _, limit in wanted],
        )
        return spread(rows, await self._open(rows), len(wanted))

    async def _open(self, rows: Sequence[Row]) -> list[StoredEvent]:
        return await open_events(self._database.subjects, [from_row(row) for row in rows])

    async def stream(self, stream_id: str, after: int = 0, page: int = 500) -> AsyncIterator[StoredEvent]:
        """All events with a version above `after`, page by page."""
        while True:
            events = await self.read_stream(stream_id, after, page)
            for event in events:
                yield event
            if len(events) < page:
                return
            after = events[-1].version

    async def head(self, stream_id: str) -> int:
        """The stream's version, 0 when there is none."""
        return (await self.heads([stream_id]))[stream_id]

    async def heads(self, stream_ids: Sequence[str]) -> dict[str, int]:
        """The versions of many streams in one query; 0 for those that do not exist."""
        rows = await self._database.fetch(
            """SELECT s.id, coalesce((SELECT max(stream_version) FROM events WHERE stream_id = s.id), 0) AS version
               FROM unnest($1::text[]) AS s (id)""",
            list(stream_ids),
        )
        return {row["id"]: row["version"] for row in rows}

    async def ended_among(self, run_ids: Sequence[str]) -> list[str]:
        """Those of these runs whose last event ends them."""
        rows = await self._database.fetch(
            """SELECT r.id FROM unnest($1::text[]) AS r (id)
               CROSS JOIN LATERAL (SELECT event_type FROM events WHERE stream_id = 'run-' || r.id
                                   ORDER BY stream_version DESC LIMIT 1) e
               WHERE e.event_type = ANY ($2)""",
            list(run_ids),
            list(ENDING_EVENTS),
        )
        return [row["id"] for row in rows]

    async def read_ends(self, stream_ids: Sequence[str]) -> list[list[StoredEvent]]:
        """Of each stream the first two events and the last, in order; nothing of one that there is not. A run's submit
        is among them, and what has ended it."""
        rows = await self._database.fetch(
            f"""SELECT w.place, {COLUMNS}
                FROM unnest($1::text[]) WITH ORDINALITY AS w (stream, place)
                CROSS JOIN LATERAL (
                    (SELECT * FROM events WHERE stream_id = w.stream ORDER BY stream_version LIMIT 2)
                    UNION
                    (SELECT * FROM events WHERE stream_id = w.stream ORDER BY stream_version DESC LIMIT 1)) e
                ORDER BY w.place, stream_version""",  # noqa: S608  constants
            list(stream_ids),
        )
        return spread(rows, await self._open(rows), len(stream_ids))

    async def read_all(
        self, after: Cursor, limit: int = 500, *, connection: Connection | None = None
    ) -> Sequence[StoredEvent]:
        """Events of all streams beyond a cursor. Stops at the oldest open transaction: what might still commit
        in between is never overtaken. Whoever has a `connection` reads over that one and waits for no second."""
        fetch = self._database.fetch if connection is None else connection.fetch
        rows = await fetch(_beyond("true"), str(after.transaction_id), after.global_position, limit)
        return await self._open(rows)

    async def read_category(self, category: str, after: Cursor, limit: int = 500) -> Sequence[StoredEvent]:
        """As `read_all`, of the streams `<category>-...` alone. What others write costs it nothing."""
        rows = await self._database.fetch(
            _beyond("split_part(stream_id, '-', 1) = $4"),
            str(after.transaction_id),
            after.global_position,
            limit,
            category,
        )
        return await self._open(rows)

    async def settled(self) -> Cursor:
        """The place from which on events may still come: all before it are there to be read."""
        [row] = await self._database.fetch("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        return Cursor(int(row[0]), 0)

    async def read_correlated(self, correlation_id: str, limit: int = 100_000) -> Sequence[StoredEvent]:
        """Every event of one flow, over all streams, in the order they were written."""
        rows = await self._database.fetch(
            f"SELECT {COLUMNS} FROM events WHERE metadata ->> 'correlationid' = $1 "  # noqa: S608  constants
            "ORDER BY global_position LIMIT $2",
            correlation_id,
            limit,
        )
        return await self._open(rows)

    async def read_run(self, stream_id: str, connection: Connection, limit: int) -> Sequence[StoredEvent]:
        """A run's events and those of its effects, in the order of the whole log, as its `connection` sees them."""
        rows = await connection.fetch(
            f"""WITH own AS (SELECT * FROM events WHERE stream_id = $1)
                SELECT {COLUMNS} FROM (
                    SELECT * FROM own
                    UNION
                    SELECT e.* FROM events e, (SELECT metadata FROM own WHERE stream_version = 1) o
                    WHERE e.metadata ->> 'correlationid' = o.metadata ->> 'correlationid'
                      AND e.metadata ->> 'runid' = o.metadata ->> 'runid') e
                ORDER BY e.transaction_id, global_position LIMIT $2""",  # noqa: S608  constants
            stream_id,
            limit,
        )
        return await self._open(rows)


def spread(rows: Sequence[Row], events: Sequence[StoredEvent], wanted: int) -> list[list[StoredEvent]]:
    """The events of several reads in one statement, each with those of its own `place`, from 1."""
    found: list[list[StoredEvent]] = [[] for _ in range(wanted)]
    for row, event in zip(rows, events, strict=True):
        found[row["place"] - 1].append(event)
    return found


def cursor_of(event: StoredEvent) -> Cursor:
    return Cursor(event.transaction_id, event.global_position)


def _beyond(condition: str) -> str:
    """The query of a page: $1 and $2 are the cursor, $3 how many events at most."""
    # Qualified: the bare name would be the column of the answer, which is a text, and 10 comes before 9 there.
    return (
        f"SELECT {COLUMNS} FROM events WHERE {condition} "  # noqa: S608  constants
        "AND (transaction_id, global_position) > ($1::text::xid8, $2) "
        "AND transaction_id < pg_snapshot_xmin(pg_current_snapshot()) "
        "ORDER BY events.transaction_id, global_position LIMIT $3"
    )
