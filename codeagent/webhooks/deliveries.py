"""What was sent to a webhook and what became of it, as its owner sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from codeagent import clock
from codeagent.cursors import page_of, parse_id_cursor
from codeagent.errors import NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Change
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.ids import parse_typed_id, typed_id

NONE_SUCH = "There is no such delivery."
_COLUMNS = """id, webhook_id, event_id::text, event_type, state, attempts, due_at, last_status, last_error,
    last_latency_ms, created_at, updated_at"""


class DeliveryState(StrEnum):
    """`failed`: given up, until somebody asks for a redelivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """`due_at` is when it is tried next, while it is pending. `last_*` are of the newest attempt: the HTTP status, or
    the code of what kept it from having one, and how long it took."""

    id: str
    webhook_id: str
    event_id: str
    event_type: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    last_status: int | None
    last_error: str | None
    last_latency_ms: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try, from 1. `error` as in `Delivery.last_error`."""

    number: int
    ended_at: datetime
    status: int | None
    error: str | None
    latency_ms: int | None


def new_delivery_id() -> str:
    """Ordered by time, so that the order of ids is that of deliveries."""
    return typed_id("dlv", clock.new_uuid())


async def insert_delivery(change: Change, webhook_id: str, event: StoredEvent) -> Delivery:
    """An event for one webhook, within the transaction that appends it."""
    row = await change.row(
        f"""INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, stream_id, stream_version)
            VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}""",  # noqa: S608  constants
        new_delivery_id(),
        event.tenant_id,
        webhook_id,
        event.id,
        event.type,
        event.stream_id,
        event.version,
    )
    return _from_row(row)


async def renew_delivery(change: Change, webhook_id: str, delivery_id: str) -> Delivery:
    """Due at once, on a schedule begun anew. One that is being tried this moment is left to that. Raises
    `NotFound`."""
    _check_id(delivery_id)
    rows = await change.rows(
        f"""UPDATE webhook_deliveries SET state = 'pending', updated_at = clock_timestamp(),
                step = CASE WHEN token IS NULL THEN 0 ELSE step END,
                began_at = CASE WHEN token IS NULL THEN clock_timestamp() ELSE began_at END,
                due_at = CASE WHEN token IS NULL THEN clock_timestamp() ELSE due_at END
            WHERE id = $1 AND webhook_id = $2 RETURNING {_COLUMNS}""",  # noqa: S608  constants
        delivery_id,
        webhook_id,
    )
    return _one(rows)


class Deliveries:
    """`database` works under the edge's role: every method sees the deliveries of the named tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, tenant_id: str, webhook_id: str, *, state: DeliveryState | None, after: str | None, limit: int
    ) -> tuple[Sequence[Delivery], str | None]:
        """Newest first, and the next page's cursor. Raises `Rejected` for a cursor that is none."""
        rows = await self._database.fetch(
            f"""SELECT {_COLUMNS} FROM webhook_deliveries
                WHERE webhook_id = $1 AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR id < $3)
                ORDER BY id DESC LIMIT $4""",  # noqa: S608  constants
            webhook_id,
            state,
            parse_id_cursor("dlv", after),
            limit + 1,
            tenant=tenant_id,
        )
        found = [_from_row(row) for row in rows]
        return page_of(found, limit, lambda item: item.id)

    async def find(self, tenant_id: str, webhook_id: str, delivery_id: str) -> Delivery:
        """Raises `NotFound`."""
        _check_id(delivery_id)
        rows = await self._database.fetch(
            f"SELECT {_COLUMNS} FROM webhook_deliveries WHERE id = $1 AND webhook_id = $2",  # noqa: S608  constants
            delivery_id,
            webhook_id,
            tenant=tenant_id,
        )
        return _one(rows)

    async def attempts(self, tenant_id: str, delivery_id: str) -> Sequence[Attempt]:
        """The newest tries, oldest first. One whose sender died has no latency and the error `sender_lost`."""
        rows = await self._database.fetch(
            """SELECT number, ended_at, status, error, latency_ms FROM webhook_attempts WHERE delivery_id = $1
               ORDER BY number""",
            delivery_id,
            tenant=tenant_id,
        )
        return [Attempt(**dict(row)) for row in rows]


def _check_id(delivery_id: str) -> None:
    if parse_typed_id("dlv", delivery_id) is None:
        raise NotFound(NONE_SUCH)


def _one(rows: Sequence[Row]) -> Delivery:
    if not rows:
        raise NotFound(NONE_SUCH)
    return _from_row(rows[0])


def _from_row(row: Row) -> Delivery:
    values = dict(row)
    values["state"] = DeliveryState(values["state"])
    return Delivery(**values)
