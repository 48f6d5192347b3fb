"""Breaches of personal data (Art. 33, 34) and their clock: the authority has to know within 72 hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from codeagent import clock
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, InvalidInput, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, ControlPlane, check_repeat
from codeagent.messages.ids import breach_stream, parse_typed_id
from codeagent.messages.privacy_events import BreachRecorded, BreachUpdated

PREFIX = "brc"
NOTIFY_WITHIN = timedelta(hours=72)
MOMENTS = ("authority_notified_at", "subjects_notified_at", "closed_at")
NONE_SUCH = "There is no such breach."


@dataclass(frozen=True, slots=True)
class Breach:
    """`subjects_affected` is None as long as it is not known."""

    id: str
    version: int
    summary: str
    measures: str
    categories: tuple[str, ...]
    subjects_affected: int | None
    discovered_at: datetime
    notify_by: datetime
    authority_notified_at: datetime | None
    subjects_notified_at: datetime | None
    closed_at: datetime | None
    fingerprint: str
    created_by: str
    created_at: datetime

    @property
    def overdue(self) -> bool:
        """Whether the authority was told too late, or is not told yet and it is. Who closes one without has found that
        there was nothing to tell."""
        if self.authority_notified_at is None and self.closed_at is not None:
            return False
        return (self.authority_notified_at or clock.now()) > self.notify_by


@dataclass(frozen=True, slots=True)
class BreachOrder:
    """A breach to record. `id` is derived from the HTTP request, so that a repeat makes none."""

    id: str
    summary: str
    measures: str
    categories: tuple[str, ...]
    subjects_affected: int | None
    discovered_at: datetime
    fingerprint: str


class Breaches:
    """`database` works under the edge's role."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)

    async def record(self, author: Author, order: BreachOrder) -> tuple[Breach, bool]:
        """The breach, whose clock starts at its discovery, and whether it was recorded before. Raises `InvalidInput`
        for one that is yet to come."""
        if order.discovered_at > clock.now():
            raise InvalidInput("A breach is recorded after its discovery.", pointer="/discovered_at")
        notify_by = order.discovered_at + NOTIFY_WITHIN
        try:
            async with self._control.change(author) as change:
                row = await change.row(
                    """INSERT INTO privacy_breaches (id, tenant_id, version, summary, measures, categories,
                                                     subjects_affected, discovered_at, notify_by, fingerprint,
                                                     created_by)
                       VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING *""",
                    order.id,
                    author.tenant_id,
                    order.summary,
                    order.measures,
                    list(order.categories),
                    order.subjects_affected,
                    order.discovered_at,
                    notify_by,
                    order.fingerprint,
                    author.id,
                )
                fact = BreachRecorded(breach_id=order.id, discovered_at=order.discovered_at, notify_by=notify_by)
                await change.record(breach_stream(order.id), 1, fact)
        except Conflict:
            known = await self.find(author.tenant_id, order.id)
            check_repeat(known.fingerprint, order.fingerprint)
            return known, True
        return _breach(row), False

    async def find(self, tenant_id: str, breach_id: str) -> Breach:
        """Raises `NotFound`, also for another tenant's."""
        query = "SELECT * FROM privacy_breaches WHERE id = $1"
        known = parse_typed_id(PREFIX, breach_id) is not None
        rows = await self._database.fetch(query, breach_id, tenant=tenant_id) if known else ()
        if not rows:
            raise NotFound(NONE_SUCH)
        return _breach(rows[0])

    async def page(self, tenant_id: str, after: str | None, limit: int) -> tuple[Sequence[Breach], str | None]:
        """Breaches, newest record first, and the cursor of what follows. Raises `Rejected` (`malformed_cursor`)."""
        created_at, breach_id = parse_time_cursor(PREFIX, after)
        rows = await self._database.fetch(
            """SELECT * FROM privacy_breaches
               WHERE $1::timestamptz IS NULL OR (created_at, id) < ($1, $2)
               ORDER BY created_at DESC, id DESC LIMIT $3""",
            created_at,
            breach_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = [_breach(row) for row in rows]
        return page_of(found, limit, lambda breach: format_time_cursor(breach.created_at, breach.id))

    async def update(self, author: Author, breach: Breach, values: dict[str, object]) -> Breach:
        """Sets columns by name. Raises `VersionMismatch` for one that has changed, `Conflict` for one that is closed,
        `InvalidInput` for what was done before the breach was discovered, or is yet to come."""
        if breach.closed_at is not None:
            raise Conflict("The breach is closed.", code="invalid_state_transition")
        now = clock.now()
        for name in MOMENTS:
            moment = values.get(name)
            if isinstance(moment, datetime) and not breach.discovered_at <= moment <= now:
                raise InvalidInput("It lies between the breach's discovery and now.", pointer=f"/{name}")
        assigned = "".join(f", {name} = ${n}" for n, name in enumerate(values, 3))
        async with self._control.change(author) as change:
            row = await change.row(
                f"UPDATE privacy_breaches SET version = version + 1{assigned} "  # noqa: S608  names of our own model
                "WHERE id = $1 AND version = $2 RETURNING *",
                breach.id,
                breach.version,
                *values.values(),
            )
            fact = BreachUpdated(
                breach_id=breach.id,
                authority_notified_at=row["authority_notified_at"],
                subjects_notified_at=row["subjects_notified_at"],
                closed_at=row["closed_at"],
            )
            await change.record(breach_stream(breach.id), row["version"], fact)
        return _breach(row)


async def next_notice(database: Database) -> datetime | None:
    """Until when an authority has to be told of an open breach, of any tenant: the earliest. None without any."""
    [row] = await database.fetch("SELECT next_breach_v1()")
    moment: datetime | None = row[0]
    return moment


def _breach(row: Row) -> Breach:
    values = {name: value for name, value in row.items() if name != "tenant_id"}
    values["categories"] = tuple(values["categories"])
    return Breach(**values)
