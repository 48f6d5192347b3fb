"""The log as the edge sees it: every read names its tenant, and another tenant's stream is an empty one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.feed import EVERYTHING, FEED, HORIZON, MOST_SCANNED, FeedPage, Horizon, Wanted, feed_page
from codeagent.eventlog.log import COLUMNS, Cursor, spread
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.messages.ids import run_stream
from codeagent.subjects.keys import SubjectKeys

EDGE_ROLE = "codeagent_edge"
"""The database role that row-level security holds to the tenant of each call."""


class TenantLog:
    """`database` works under `EDGE_ROLE`. Reads of many clients that come while one statement runs share the next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads: Batcher[tuple[str, str, int, int], list[StoredEvent]] = Batcher(self._read_many, most=20, lanes=4)

    @property
    def subjects(self) -> SubjectKeys:
        """The keys that what it reads is opened with."""
        return self._database.subjects

    async def read_stream(
        self, tenant_id: str, stream_id: str, after: int = 0, limit: int = 500
    ) -> Sequence[StoredEvent]:
        """Events with a version above `after`, in order, at most `limit`."""
        return await self._reads((tenant_id, stream_id, after, limit))

    async def _read_many(self, wanted: Sequence[tuple[str, str, int, int]]) -> Sequence[list[StoredEvent]]:
        rows = await self._database.fetch(
            "SELECT * FROM read_streams_v2($1, $2, $3, $4)", *(list(column) for column in zip(*wanted, strict=True))
        )
        return spread(rows, await self._open(rows), len(wanted))

    async def _open(self, rows: Sequence[Row]) -> list[StoredEvent]:
        return await open_events(self._database.subjects, [from_row(row) for row in rows])

    async def stream(
        self, tenant_id: str, stream_id: str, after: int = 0, page: int = 500
    ) -> AsyncIterator[StoredEvent]:
        """All events with a version above `after`, page by page."""
        while True:
            events = await self.read_stream(tenant_id, stream_id, after, page)
            for event in events:
                yield event
            if len(events) < page:
                return
            after = events[-1].version

    async def is_emptied(self, tenant_id: str, run_id: str) -> bool:
        """Whether the content of a run was taken out of the log."""
        rows = await self._database.fetch(
            """SELECT FROM events WHERE stream_id = $1 AND stream_version <= 2 AND event_type = 'run.submitted'
                   AND key_id IS NOT NULL AND sealed IS NULL""",
            run_stream(run_id),
            tenant=tenant_id,
        )
        return bool(rows)

    async def correlated(self, tenant_id: str, correlation_id: str, limit: int) -> Sequence[StoredEvent]:
        """At most `limit` events of one flow, over all streams, in the order they were written."""
        rows = await self._database.fetch(
            f"SELECT {COLUMNS} FROM events WHERE metadata ->> 'correlationid' = $1 "  # noqa: S608  constants
            "ORDER BY global_position LIMIT $2",
            correlation_id,
            limit,
            tenant=tenant_id,
        )
        return await self._open(rows)

    async def heads(self, stream_ids: Sequence[str]) -> dict[str, int]:
        """The versions of many streams, of any tenant, in one query; 0 for those that do not exist."""
        rows = await self._database.fetch("SELECT * FROM stream_heads_v1($1)", list(stream_ids))
        return {row["id"]: row["version"] for row in rows}

    async def horizon(self) -> Horizon:
        """How far the log is settled now."""
        [row] = await self._database.fetch(HORIZON)
        return Horizon(int(row["settled"]), int(row["newest"]))

    async def feed(self, tenant_id: str, after: Cursor, limit: int = 500, wanted: Wanted = EVERYTHING) -> FeedPage:
        """At most `limit` events of a tenant's runs beyond a cursor. Never overtakes what might still commit in
        between."""
        rows = await self._database.fetch(
            FEED,
            tenant_id,
            str(after.transaction_id),
            after.global_position,
            limit,
            MOST_SCANNED,
            None if wanted.types is None else list(wanted.types),
            None if wanted.run_id is None else run_stream(wanted.run_id),
            tenant=tenant_id,
        )
        wanted_rows = [row for row in rows if row["wanted"]]
        return feed_page(rows, await self._open(wanted_rows), after)
