"""The control plane's way into the log: a row and the fact of its change, committed together or not at all.

    async with control.change(author) as change:
        row = await change.row("UPDATE projects SET ..., version = version + 1 WHERE id = $1 AND version = $2 "
                               "RETURNING *", project_id, version)
        await change.record(f"project-{project_id}", row["version"], ProjectRenamed(...))

A row's version is that of its stream's newest fact, and the row's lock keeps two changes of it apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import orjson

from codeagent import clock
from codeagent.errors import InvalidInput, VersionMismatch
from codeagent.eventlog.database import Connection, Database, Row
from codeagent.eventlog.sealing import subject_of
from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.messages.envelope import Event
from codeagent.messages.personal import holds_content
from codeagent.subjects.keys import SubjectKeys


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and within which flow. Ids are pseudonymous: never a name or an address.

    `address` is where the request comes from. It is kept beside the log and not in it, so that it can be forgotten.
    """

    tenant_id: str
    type: str
    id: str
    correlation_id: UUID
    traceparent: str | None = None
    address: str | None = None

    def metadata(self) -> dict[str, str]:
        known = {"correlationid": str(self.correlation_id), "authtype": self.type, "authid": self.id}
        return known if self.traceparent is None else {**known, "traceparent": self.traceparent}


class Change:
    """A transaction of one tenant that is still open. Leaving its block commits; an error leaves nothing behind."""

    def __init__(self, connection: Connection, author: Author, keys: SubjectKeys) -> None:
        self._connection = connection
        self._author = author
        self.subjects = keys

    async def rows(self, statement: str, *arguments: Any) -> Sequence[Row]:
        return await self._connection.fetch(statement, *arguments)

    async def row(self, statement: str, *arguments: Any) -> Row:
        """The row that a statement writes and returns. Raises `VersionMismatch` where it writes none, as one does
        that names the version it expects."""
        row = await self._connection.fetchrow(statement, *arguments)
        if row is None:
            raise VersionMismatch("It has changed meanwhile: read it again.")
        return row

    async def record(self, stream_id: str, version: int, event: Event) -> StoredEvent:
        """Appends the fact at the row's version. Raises `Conflict` where the stream is not at the one before. What is
        personal in it is the author's, or that of the principal that it names."""
        tenant_id = self._author.tenant_id
        key = await self.subjects.of(tenant_id, subject_of(event, self._author.id)) if holds_content(event) else None
        stored = prepare(
            event,
            stream_id=stream_id,
            version=version,
            event_id=clock.new_uuid(),
            tenant_id=tenant_id,
            occurred_at=clock.now(),
            metadata=self._author.metadata(),
            key=key,
        )
        await self._connection.execute(
            "SELECT append_fact_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            stored.stream_id,
            stored.version,
            stored.tenant_id,
            stored.id,
            stored.type,
            stored.schema_version,
            stored.kept,
            stored.data_digest,
            orjson.dumps(stored.metadata).decode(),
            stored.occurred_at,
            stored.leaf_hash,
            stored.key_id,
            stored.sealed,
            stored.sealed_digest,
        )
        await self._note_origin(stored)
        return stored

    async def append(self, stream_id: str, event: Event) -> StoredEvent:
        """The next fact of a stream whose versions no row counts, whoever else writes to it at the same moment."""
        await self.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", stream_id)
        newest = "SELECT coalesce(max(stream_version), 0) AS version FROM events WHERE stream_id = $1"
        return await self.record(stream_id, (await self.row(newest, stream_id))["version"] + 1, event)

    async def _note_origin(self, fact: StoredEvent) -> None:
        try:
            address = ip_address(self._author.address or "")
        except ValueError:
            return  # a Unix socket, or nobody on a network
        statement = "INSERT INTO fact_origins (event_id, tenant_id, address) VALUES ($1, $2, $3)"
        await self._connection.execute(statement, fact.id, fact.tenant_id, address)


class ControlPlane:
    """Writes under the edge's role, so that row-level security holds each change to its author's tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def change(self, author: Author) -> AsyncIterator[Change]:
        """Raises `Conflict` for what is already there, `OutcomeUnknown` where the end of the commit was not seen."""
        async with self._database.transaction(author.tenant_id) as connection:
            yield Change(connection, author, self._database.subjects)


def check_repeat(made_by: str, asked: str) -> None:
    """To be called where an id that is derived from a request stands for something already: two fingerprints, of the
    request that made it and of this one. Raises `InvalidInput` (`idempotency_key_reused`) where they differ."""
    if made_by != asked:
        raise InvalidInput("This Idempotency-Key was used for another request.", code="idempotency_key_reused")


async def forget_origins(database: Database, keep: timedelta, most: int) -> int:
    """Removes at most `most` addresses that are older than `keep`; returns how many. The facts stay."""
    rows = await database.write(
        """DELETE FROM fact_origins WHERE event_id IN (
               SELECT event_id FROM fact_origins WHERE recorded_at < clock_timestamp() - $1::interval
               ORDER BY recorded_at LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING event_id""",
        keep,
        most,
    )
    return len(rows)
