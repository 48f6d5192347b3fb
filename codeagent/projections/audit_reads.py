"""Reading the audit is an act of its own: each read is a fact, and all pages of a search are one read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from codeagent.clock import new_uuid
from codeagent.cursors import format_moment, malformed_cursor, parse_moment
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.audit_events import AuditRead
from codeagent.messages.ids import audit_stream, typed_id
from codeagent.projections.audit_search import Place

Access = Literal["search", "event", "verification", "export", "proof", "log", "republish"]


@dataclass(frozen=True, slots=True)
class SearchCursor:
    """Where a search is, and the fact that tells of it: a cursor of nobody's search continues nothing."""

    place: Place
    read_id: UUID

    def __str__(self) -> str:
        return f"{format_moment(self.place.occurred_at)}~{self.place.event_id}~{self.read_id}"

    @classmethod
    def parse(cls, text: str) -> SearchCursor:
        """Raises `Rejected` (`malformed_cursor`)."""
        try:
            moment, event_id, read_id = text.split("~")
            return cls(Place(parse_moment(moment), UUID(event_id)), UUID(read_id))
        except ValueError:
            raise malformed_cursor() from None


class AuditReads:
    """`database` works under the edge's role, or sees all tenants where operators read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)

    async def record(self, reader: Author, access: Access, wanted: dict[str, str]) -> UUID:
        """Writes down who is about to read what; returns the fact's id. Without it nothing is read."""
        async with self._control.change(reader) as change:
            stream_id = audit_stream(typed_id("aud", new_uuid()))
            fact = await change.record(stream_id, 1, AuditRead(access=access, filter=wanted))
        return fact.id

    async def check(self, reader: Author, wanted: dict[str, str], read_id: UUID) -> None:
        """Raises `Rejected` (`malformed_cursor`) unless that was a search of this reader for the same."""
        rows = await self._database.fetch(
            """SELECT data FROM events
               WHERE event_id = $1 AND event_type = $2 AND metadata ->> 'authid' = $3 AND data IS NOT NULL""",
            read_id,
            AuditRead.NAME,
            reader.id,
            tenant=reader.tenant_id,
        )
        if not rows or AuditRead.model_validate_json(rows[0]["data"]) != AuditRead(access="search", filter=wanted):
            raise malformed_cursor()
