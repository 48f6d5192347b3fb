"""What a sweep finds in the ledgers: messages whose first sending failed or was lost, and timers that are due."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson

from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.effects import open_commands
from codeagent.eventlog.sealing import outbox_place
from codeagent.messages.envelope import Headers, Message

RESEND_AFTER = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class DueRow:
    """A message to send again: a record as it stands, or the events `first..last` of a stream. `goes_when_sent`: nobody
    else removes the row."""

    id: UUID
    topic: str
    key: str
    headers: Headers
    value: bytes | None
    stream_id: str | None
    first_version: int
    last_version: int
    goes_when_sent: bool


class Sweeper:
    """Any number may run at once: rows are taken under `SKIP LOCKED` and come due again later."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._removals: Batcher[UUID, None] = Batcher(self._remove_many, most=500, lanes=1)

    async def due_messages(self, most: int = 200) -> Sequence[DueRow]:
        rows = await self._database.write(
            """UPDATE outbox SET due_at = clock_timestamp() + $2 WHERE id IN (
                   SELECT id FROM outbox WHERE due_at < clock_timestamp() ORDER BY due_at LIMIT $1
                   FOR UPDATE SKIP LOCKED)
               RETURNING id, topic, key, headers, value, stream_id, first_version, last_version, goes_when_sent""",
            most,
            RESEND_AFTER,
        )
        held = {outbox_place(row["id"]): row["value"] for row in rows if row["value"] is not None}
        opened = await self._database.subjects.open_readable(held)
        values = ((row, opened.get(outbox_place(row["id"]))) for row in rows)
        # One that was erased waits for nobody: its row goes with its subject's. What is damaged stays, and is named.
        return [_due_row(row, value) for row, value in values if (value is None) == (row["value"] is None)]

    async def due_timers(self, most: int = 200) -> Sequence[Message]:
        """Timers past due, and children that should have answered, as the commands they fire. They stay until the run
        has handled them, and come due again."""
        rows = await self._database.write(
            """UPDATE effects SET due_at = clock_timestamp() + $2 WHERE id IN (
                   SELECT id FROM effects
                   WHERE kind IN ('timer', 'child') AND NOT recorded AND due_at < clock_timestamp()
                   ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
               RETURNING *""",
            most,
            RESEND_AFTER,
        )
        return [message for _, message in await open_commands(self._database.subjects, rows)]

    async def sent(self, row_id: UUID) -> None:
        """Removes a row for the world once the broker has it, or one for us that turned out to be handled."""
        await self._removals(row_id)

    async def _remove_many(self, row_ids: Sequence[UUID]) -> Sequence[None]:
        # A lost removal only sends the row again, so nobody waits for the disk.
        await self._database.write(
            """WITH relaxed AS (SELECT set_config('synchronous_commit', 'off', true))
               DELETE FROM outbox USING relaxed WHERE id = ANY ($1)""",
            list(row_ids),
        )
        return [None] * len(row_ids)

    async def pending(self) -> tuple[int, float, int]:
        """Rows in the outbox, age in seconds of the oldest, rows in the effects ledger."""
        rows = await self._database.fetch(
            """SELECT (SELECT count(*) FROM outbox),
                      (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM outbox),
                      (SELECT count(*) FROM effects)"""
        )
        return rows[0][0], rows[0][1], rows[0][2]


def _due_row(row: Row, value: bytes | None) -> DueRow:
    return DueRow(
        id=row["id"],
        topic=row["topic"],
        key=row["key"],
        headers=_headers(row["headers"]),
        value=value,
        stream_id=row["stream_id"],
        first_version=row["first_version"] or 0,
        last_version=row["last_version"] or 0,
        goes_when_sent=row["goes_when_sent"],
    )


def _headers(text: str | None) -> Headers:
    """Those of our own envelopes by name; those of a record as it came in a list, in base64."""
    found = orjson.loads(text) if text is not None else {}
    if isinstance(found, list):
        return [(b64decode(name).decode(), b64decode(value)) for name, value in found]
    return [(name, value.encode()) for name, value in found.items()]
