"""A tenant's feed: the events of all its runs in an order that never skips a late commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.eventlog.database import Row
from codeagent.eventlog.log import Cursor, columns
from codeagent.eventlog.stored import StoredEvent

MOST_SCANNED = 2_000
"""Rows that one query looks at, whether or not they are asked for: it stays quick however rare those are."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: of these types, of this run; of all where None."""

    types: tuple[str, ...] | None = None
    run_id: str | None = None

    def has(self, name: str, run_id: str) -> bool:
        return (self.types is None or name in self.types) and self.run_id in {None, run_id}


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True)
class Horizon:
    """What of the log is settled: every transaction before `settled` has ended. `newest` comes after all that had
    begun, so that what was committed by then is settled once `settled` has reached it."""

    settled: int
    newest: int

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.settled, 0)


@dataclass(frozen=True, slots=True)
class FeedPage:
    """`cursor` is how far the page has looked, beyond its last event where nothing else was wanted; `more` whether
    there was more that is settled."""

    events: Sequence[StoredEvent]
    cursor: Cursor
    more: bool
    horizon: Horizon


HORIZON = """SELECT pg_snapshot_xmin(snapshot)::text AS settled, pg_snapshot_xmax(snapshot)::text AS newest
    FROM pg_current_snapshot() AS snapshot"""

# $1 tenant, $2 and $3 cursor, $4 events wanted, $5 rows scanned at most, $6 types, $7 stream. The rows are the events
# wanted and, so that the reader knows how far it has come, the last one scanned; a row without position has neither.
FEED = f"""
    WITH horizon AS MATERIALIZED (
        SELECT pg_snapshot_xmin(snapshot) AS settled, pg_snapshot_xmax(snapshot) AS newest
        FROM pg_current_snapshot() AS snapshot),
    scanned AS MATERIALIZED (
        SELECT transaction_id, global_position,
               starts_with(stream_id, 'run-') AND ($6::text[] IS NULL OR event_type = ANY ($6))
               AND ($7::text IS NULL OR stream_id = $7) AS wanted
        FROM events
        WHERE tenant_id = $1 AND (transaction_id, global_position) > ($2::text::xid8, $3::bigint)
              AND transaction_id < (SELECT settled FROM horizon)
        ORDER BY transaction_id, global_position LIMIT $5),
    counted AS (
        SELECT *, count(*) FILTER (WHERE wanted) OVER (ORDER BY transaction_id, global_position) AS found
        FROM scanned),
    kept AS (
        SELECT *, row_number() OVER (ORDER BY transaction_id, global_position) AS number, count(*) OVER () AS kept
        FROM counted WHERE found - wanted::integer < $4)
    SELECT h.settled::text, h.newest::text, coalesce(k.kept, 0) AS kept, (SELECT count(*) FROM scanned) AS scanned,
           k.wanted, k.transaction_id::text, k.global_position AS reached, {columns("e.")}
    FROM horizon h
    LEFT JOIN kept k ON k.wanted OR k.number = k.kept
    LEFT JOIN events e ON e.global_position = k.global_position AND k.wanted
    ORDER BY k.transaction_id, k.global_position"""  # noqa: S608  constants


def feed_page(rows: Sequence[Row], events: Sequence[StoredEvent], after: Cursor) -> FeedPage:
    """What the rows of `FEED` say to a reader at `after`; `events` are those of the rows that are wanted."""
    first, last = rows[0], rows[-1]
    horizon = Horizon(int(first["settled"]), int(first["newest"]))
    more = first["kept"] < first["scanned"] or first["scanned"] == MOST_SCANNED
    reached = Cursor(int(last["transaction_id"]), last["reached"]) if more else horizon.cursor
    return FeedPage(events, max(reached, after), more, horizon)
