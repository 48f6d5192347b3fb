"""Legal holds: whose content stays until somebody lifts it, whatever a policy or a request for erasure says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from codeagent import clock
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.identity.held import await_removals, forget_if_removed, is_held
from codeagent.messages.ids import hold_stream, parse_typed_id
from codeagent.messages.privacy_events import HoldLifted, HoldPlaced


@dataclass(frozen=True, slots=True)
class Hold:
    """Why it was placed stays with whoever placed it: what is written about a person would have to be erased."""

    tenant_id: str
    subject_id: str
    created_by: str
    created_at: datetime


class Holds:
    """`database` works under the edge's role."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)

    async def place(self, author: Author, subject_id: str) -> Hold:
        """Waits for what is being removed this moment; nothing is, once it has returned. A repeat changes nothing.
        Raises `NotFound` for what is no user of the tenant."""
        async with self._control.change(author) as change:
            await await_removals(change, author.tenant_id)
            known_id = parse_typed_id("usr", subject_id) is not None
            if not known_id or not await change.rows("SELECT FROM users WHERE id = $1", subject_id):
                raise NotFound("There is no such user.")
            if known := await _found(change, author.tenant_id, subject_id):
                return _hold(known[0])
            row = await change.row(
                """INSERT INTO legal_holds (tenant_id, subject_id, created_by, created_at)
                   VALUES ($1, $2, $3, $4) RETURNING *""",
                author.tenant_id,
                subject_id,
                author.id,
                clock.now(),
            )
            await change.append(hold_stream(subject_id), HoldPlaced(subject=subject_id))
        return _hold(row)

    async def lift(self, author: Author, subject_id: str) -> None:
        """What had to be kept of somebody who was removed meanwhile goes. Raises `NotFound` where there is none."""
        if parse_typed_id("usr", subject_id) is None:
            raise NotFound("There is no such hold.")
        async with self._control.change(author) as change:
            await await_removals(change, author.tenant_id)
            statement = "DELETE FROM legal_holds WHERE tenant_id = $1 AND subject_id = $2 RETURNING subject_id"
            if not await change.rows(statement, author.tenant_id, subject_id):
                raise NotFound("There is no such hold.")
            await forget_if_removed(change, subject_id)
            await change.append(hold_stream(subject_id), HoldLifted(subject=subject_id))

    async def page(self, tenant_id: str, after: str | None, limit: int) -> tuple[Sequence[Hold], str | None]:
        """Newest first, and the cursor of what follows. Raises `Rejected` (`malformed_cursor`)."""
        created_at, subject_id = parse_time_cursor("usr", after)
        rows = await self._database.fetch(
            """SELECT * FROM legal_holds WHERE $1::timestamptz IS NULL OR (created_at, subject_id) < ($1, $2)
               ORDER BY created_at DESC, subject_id DESC LIMIT $3""",
            created_at,
            subject_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = [_hold(row) for row in rows]
        return page_of(found, limit, lambda hold: format_time_cursor(hold.created_at, hold.subject_id))


async def check_not_held(change: Change, tenant_id: str, subject_id: str) -> None:
    """As `is_held`. Raises `Conflict` (`legal_hold`)."""
    if await is_held(change, tenant_id, subject_id):
        raise Conflict("The subject is under a legal hold.", code="legal_hold")


async def _found(change: Change, tenant_id: str, subject_id: str) -> Sequence[Row]:
    return await change.rows(
        "SELECT * FROM legal_holds WHERE tenant_id = $1 AND subject_id = $2", tenant_id, subject_id
    )


def _hold(row: Row) -> Hold:
    return Hold(**dict(row))
