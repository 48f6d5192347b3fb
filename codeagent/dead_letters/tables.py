"""The rows of dead letters: every statement about them, and nothing that decides.

Operators work for the installation: sessions of tenants see none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Change
from codeagent.messages.ids import INSTALLATION

_LETTER = """id, version, state, topic, consumer_group, topic_partition AS partition, topic_offset AS offset,
             dlq_partition, dlq_offset, record_key AS key, message_type, tenant_id, run_id, headers, headers_omitted,
             value_bytes, record_sealed IS NOT NULL AS kept, error_type, error_message, attempts, failed_at,
             received_at, redrives, settled_at, settled_by, reason"""

_WANTED = """($1::text IS NULL OR topic = $1) AND ($2::text IS NULL OR state = $2)
             AND ($3::text IS NULL OR error_type = $3) AND ($4::timestamptz IS NULL OR failed_at >= $4)"""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are meant; None asks for nothing. `since` is when they failed, at the earliest."""

    topic: str | None = None
    state: str | None = None
    error_type: str | None = None
    since: datetime | None = None

    def arguments(self) -> tuple[object, ...]:
        """Of `_WANTED`."""
        return self.topic, self.state, self.error_type, self.since


async def insert(database: Database, row: Sequence[object]) -> bool:
    """Whether it was not there before. `row`: id, topic, group, partition, offset, partition and offset of the dead
    letter, key, type, tenant, run, headers, how many more there are, bytes of the value, error's type and message,
    attempts, when it failed, the sealed record, the id of the subject's key that seals it, and its author."""
    written = await database.write(
        """INSERT INTO dead_letters (id, topic, consumer_group, topic_partition, topic_offset, dlq_partition,
               dlq_offset, record_key, message_type, tenant_id, run_id, headers, headers_omitted, value_bytes,
               error_type, error_message, attempts, failed_at, record_sealed, key_id, author_id)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb, $13, $14, $15, $16, $17, $18, $19, $20,
                   $21)
           ON CONFLICT (id) DO NOTHING RETURNING id""",
        *row,
    )
    return bool(written)


async def find(database: Database, letter_id: str) -> Sequence[Row]:
    return await database.fetch(
        f"SELECT {_LETTER} FROM dead_letters WHERE id = $1",  # noqa: S608  constants
        letter_id,
        tenant=INSTALLATION,
    )


async def page(
    database: Database, wanted: LetterFilter, received_at: datetime | None, letter_id: str | None, limit: int
) -> Sequence[Row]:
    """Newest first, from beyond a place in the list, or from its beginning."""
    return await database.fetch(
        f"""SELECT {_LETTER} FROM dead_letters
            WHERE {_WANTED} AND ($5::timestamptz IS NULL OR (received_at, id) < ($5, $6))
            ORDER BY received_at DESC, id DESC LIMIT $7""",  # noqa: S608  constants
        *wanted.arguments(),
        received_at,
        letter_id,
        limit,
        tenant=INSTALLATION,
    )


async def oldest_kept(database: Database, wanted: LetterFilter, limit: int) -> Sequence[Row]:
    """Of those whose bytes are there, the oldest first."""
    return await database.fetch(
        f"""SELECT {_LETTER} FROM dead_letters WHERE {_WANTED} AND record_sealed IS NOT NULL
            ORDER BY received_at, id LIMIT $5""",  # noqa: S608  constants
        *wanted.arguments(),
        limit,
        tenant=INSTALLATION,
    )


async def sealed(change: Change, letter_id: str, version: int) -> bytes | None:
    """Holds the row until the change is committed. Raises `VersionMismatch`."""
    row = await change.row(
        "SELECT record_sealed FROM dead_letters WHERE id = $1 AND version = $2 FOR UPDATE", letter_id, version
    )
    found: bytes | None = row["record_sealed"]
    return found


async def settle(change: Change, letter_id: str, state: str, by: str, reason: str) -> Row:
    """The row after that. The database forgets what is discarded by itself."""
    return await change.row(
        f"""UPDATE dead_letters
            SET state = $2, version = version + 1, settled_at = clock_timestamp(), settled_by = $3, reason = $4,
                redrives = redrives + ($2 = 'redriven')::integer
            WHERE id = $1 RETURNING {_LETTER}""",  # noqa: S608  constants
        letter_id,
        state,
        by,
        reason,
    )


async def enqueue(change: Change, row_id: UUID, topic: str, key: str, headers: str, value: bytes) -> None:
    """To be sent by whoever sweeps next. `headers`: a JSON list of names and values, in base64."""
    await change.rows(
        """INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at, goes_when_sent)
           VALUES ($1, $2, $3, $4, $5::jsonb, $6, clock_timestamp(), true)""",
        row_id,
        topic,
        key,
        INSTALLATION,
        headers,
        value,
    )


async def forget(database: Database, keep: timedelta, most: int) -> int:
    """Removes at most `most` that have been there for longer than `keep`; returns how many. Their facts stay."""
    rows = await database.write(
        """DELETE FROM dead_letters WHERE id IN (
               SELECT id FROM dead_letters WHERE received_at < clock_timestamp() - $1::interval
               ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING id""",
        keep,
        most,
    )
    return len(rows)


async def standing(database: Database) -> tuple[int, float]:
    """How many are open, and for how many seconds the oldest of them has been; 0 where there is none."""
    [row] = await database.fetch(
        """SELECT count(*) AS open,
                  coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float8 AS oldest
           FROM dead_letters WHERE state = 'open'"""
    )
    return row["open"], row["oldest"]


async def key_of_run(database: Database, run_id: str) -> str | None:
    """Of the key that a run's first facts are sealed with, where they are. `database` sees all tenants."""
    rows = await database.fetch(
        """SELECT key_id FROM events WHERE stream_id = 'run-' || $1 AND stream_version <= 2 AND key_id IS NOT NULL
           ORDER BY stream_version DESC LIMIT 1""",
        run_id,
    )
    return rows[0]["key_id"] if rows else None
