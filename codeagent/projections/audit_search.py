"""Finding lines of the audit, each with the fact that it stands for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.log import columns
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.messages.envelope import instant
from codeagent.projections.audit import Outcome

PAGE = 500
_EVENT = f"e.transaction_id::text, {columns('e.')}"
_CAUSE = """CASE WHEN e.metadata ->> 'causationid' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                  THEN (e.metadata ->> 'causationid')::uuid END"""
"""The command that led to an event, where that can be read."""
_TESTS = {
    "actor": "actor_id = {}",
    "action": "action = {}",
    "resource_kind": "resource_kind = {}",
    "resource_id": "resource_id = {}",
    "outcome": "outcome = {}",
    "since": "occurred_at >= {}",
    "until": "occurred_at < {}",
    "subject": "(actor_id = {0} OR resource_id = {0})",
}


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which lines: all that fit everything given. `since` is included, `until` is not; `subject` stands on either
    side of the act."""

    actor: str | None = None
    action: str | None = None
    resource_kind: str | None = None
    resource_id: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None
    subject: str | None = None

    def given(self) -> dict[str, str | datetime]:
        """What was given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def text(self) -> dict[str, str]:
        """The same as text, as a fact keeps it."""
        return {
            name: instant(value) if isinstance(value, datetime) else str(value) for name, value in self.given().items()
        }


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Of a line in the audit."""

    occurred_at: datetime
    event_id: UUID


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A line with its fact. `address` is None where none was known, and once it has been forgotten. The actor and the
    action are what the line has of them, whatever became of the fact."""

    event: StoredEvent
    actor_type: str
    actor_id: str
    action: str
    resource_kind: str
    resource_id: str
    outcome: Outcome
    address: str | None

    @property
    def place(self) -> Place:
        return Place(self.event.occurred_at, self.event.id)


class AuditSearch:
    """`database` works under the edge's role: each search sees its tenant's lines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(
        self, tenant_id: str, wanted: AuditFilter, after: Place | None, limit: int
    ) -> Sequence[AuditEntry]:
        """At most `limit` lines, newest first, beyond `after`."""
        return await self._page(tenant_id, wanted, after, limit, newest_first=True)

    async def oldest(self, tenant_id: str, wanted: AuditFilter) -> AsyncIterator[AuditEntry]:
        """All lines, oldest first, read a page at a time."""
        async for page in self.pages(tenant_id, wanted):
            for entry in page:
                yield entry

    async def pages(self, tenant_id: str, wanted: AuditFilter) -> AsyncIterator[Sequence[AuditEntry]]:
        """The same, a page at a time."""
        after: Place | None = None
        while True:
            page = await self._page(tenant_id, wanted, after, PAGE, newest_first=False)
            yield page
            if len(page) < PAGE:
                return
            after = page[-1].place

    async def find(self, tenant_id: str, event_id: UUID) -> AuditEntry | None:
        rows = await self._database.fetch(_query(["a.event_id = $1"], "DESC", "1"), event_id, tenant=tenant_id)
        return (await self._entries(rows))[0] if rows else None

    async def _entries(self, rows: Sequence[Row]) -> list[AuditEntry]:
        events = await open_events(self._database.subjects, [from_row(row) for row in rows])
        return [_entry(row, event) for row, event in zip(rows, events, strict=True)]

    async def _page(
        self, tenant_id: str, wanted: AuditFilter, after: Place | None, limit: int, *, newest_first: bool
    ) -> Sequence[AuditEntry]:
        given = wanted.given()
        tests = ["a.tenant_id = $1", *(_TESTS[name].format(f"${n}") for n, name in enumerate(given, 2))]
        arguments: list[object] = [tenant_id, *given.values()]
        if after is not None:
            sign, n = "<" if newest_first else ">", len(arguments)
            tests.append(f"(occurred_at, a.event_id) {sign} (${n + 1}, ${n + 2})")
            arguments += [after.occurred_at, after.event_id]
        query = _query(tests, "DESC" if newest_first else "ASC", f"${len(arguments) + 1}")
        rows = await self._database.fetch(query, *arguments, limit, tenant=tenant_id)
        return await self._entries(rows)


def _query(tests: Sequence[str], order: str, limit: str) -> str:
    """`tests` are constants with numbered parameters: what nobody asked for is not compared, so that an index
    serves."""
    return f"""
        WITH page AS MATERIALIZED (
            SELECT * FROM audit_events a WHERE {" AND ".join(tests)}
            ORDER BY a.occurred_at {order}, a.event_id {order} LIMIT {limit})
        SELECT {_EVENT}, p.actor_type, p.actor_id, p.action, p.resource_kind, p.resource_id, p.outcome,
               host(coalesce(o.address, c.address)) AS address
        FROM page p JOIN events e ON e.event_id = p.event_id LEFT JOIN fact_origins o ON o.event_id = p.event_id
             LEFT JOIN fact_origins c ON c.actor_id = p.actor_id AND c.event_id = {_CAUSE}
        ORDER BY p.occurred_at {order}, p.event_id {order}"""  # noqa: S608  constants


def _entry(row: Row, event: StoredEvent) -> AuditEntry:
    return AuditEntry(
        event,
        row["actor_type"],
        row["actor_id"],
        row["action"],
        row["resource_kind"],
        row["resource_id"],
        Outcome(row["outcome"]),
        row["address"],
    )
