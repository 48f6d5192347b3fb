"""What is kept from the log, verified: rows and places are held against the log, and each that is wrong is named."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import asyncpg

from codeagent.errors import Rejected
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.comparison import Difference, WrongRow
from codeagent.projections.projection import Projection
from codeagent.projections.rebuild import compared, place_of, standing_by
from codeagent.projections.shadow import Shadow, cover, follow, uncover

_OTHER_TABLES = (asyncpg.SyntaxOrAccessError, asyncpg.DataError, ValueError)
"""What statements come to on tables that are not as a release has made them; the driver refuses other types itself."""
_NO_TABLES = (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)
_MISSING = "SELECT t FROM unnest($1::text[]) t WHERE to_regclass('public.' || t) IS NULL"
_NOWHERE = """SELECT name, transaction_id::text AS tid, global_position FROM projections p
    WHERE global_position <> 0 AND NOT EXISTS (
        SELECT FROM events e WHERE (e.transaction_id, e.global_position) = (p.transaction_id, p.global_position))
    ORDER BY name"""


class Code(StrEnum):
    """Stable names of what can be wrong."""

    ROW_CHANGED = "projection_row_changed"
    ROW_MISSING = "projection_row_missing"
    ROW_SURPLUS = "projection_row_surplus"
    TABLE_WRONG = "projection_table_wrong"
    PLACE_MISSING = "projection_place_missing"
    PLACE_WRONG = "projection_place_wrong"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that is wrong, and where: a row by its key, a table, a projection's place. What rows say is not told:
    it may be personal."""

    code: Code
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code} at {self.where}: {self.detail}"


@dataclass(slots=True)
class ProjectionVerification:
    """Makes all projections' rows a second time, and compares. Relays may be at work; it changes nothing. After the
    findings, `verified` are the names of those that were compared, `events` how many of the log they are made of, and
    those that are `not_begun` have neither rows nor a place."""

    database: Database
    verified: list[str] = field(default_factory=list)
    not_begun: list[str] = field(default_factory=list)
    events: int = 0

    async def findings(self) -> AsyncGenerator[Discrepancy, None]:
        """All of them; one does not keep the next from being found. Raises `Unavailable`, and `Rejected` where it may
        make no temporary tables."""
        async with self.database.session() as session:
            async for found in self.over(session):
                yield found

    async def over(self, session: Connection) -> AsyncGenerator[Discrepancy, None]:
        """As `findings`, as this session sees rows and places."""
        for row in await session.fetch(_NOWHERE):
            place = Cursor(int(row["tid"]), row["global_position"])
            yield Discrepancy(Code.PLACE_WRONG, f"the place of {row['name']}", f"{place} is that of no event")
        whole = []
        for kind in PROJECTIONS.values():
            missing = await session.fetch(_MISSING, [kept.table for kept in kind.KEEPS])
            for row in missing:
                yield Discrepancy(Code.TABLE_WRONG, f"table {row['t']} of {kind.NAME}", "it is gone")
            whole += [] if missing else [kind]
        try:
            found = await self._together(session, whole)
        except _OTHER_TABLES:
            self.verified, self.not_begun = [], []
            found = [each for kind in whole for each in await self._alone(session, kind)]
        for discrepancy in found:
            yield discrepancy

    async def _alone(self, session: Connection, kind: type[Projection]) -> list[Discrepancy]:
        try:
            return await self._together(session, [kind])
        except _OTHER_TABLES as error:
            detail = f"it is not as this release has it ({type(error).__name__})"
            where = f"tables {', '.join(kept.table for kept in kind.KEEPS)} of {kind.NAME}"
            return [Discrepancy(Code.TABLE_WRONG, where, detail)]

    async def _together(self, session: Connection, kinds: Sequence[type[Projection]]) -> list[Discrepancy]:
        """Reads the log once for all of them."""
        log = EventLog(self.database)
        try:
            await cover(session, kinds)
        except _NO_TABLES as error:
            detail = f"the account of the database may make no temporary tables here ({type(error).__name__})"
            raise Rejected(f"{detail}, and projections cannot be verified without") from error
        try:
            shadows = [Shadow(session, self.database, kind) for kind in kinds]
            places = {shadow: await place_of(session, shadow.kind) for shadow in shadows}
            await follow(session, log, {shadow: place for shadow, place in places.items() if place is not None})
            return [each for shadow in shadows for each in await self._one(session, log, shadow)]
        finally:
            await uncover(session)

    async def _one(self, session: Connection, log: EventLog, shadow: Shadow) -> list[Discrepancy]:
        async with standing_by(session, shadow.kind):
            place = await place_of(session, shadow.kind)
            if place is None:
                return await self._without_a_place(session, shadow.kind)
            await follow(session, log, {shadow: place})
            differences = await compared(session, shadow.kind)
            self.verified.append(shadow.kind.NAME)
            self.events = max(self.events, shadow.events)
            if differences:
                # Rows that are those of the log's end are right: it is the place that somebody has moved.
                await follow(session, log, {shadow: None})
                if place < shadow.place and not await compared(session, shadow.kind):
                    detail = f"it is {place}, and the rows are those of {shadow.place}"
                    return [Discrepancy(Code.PLACE_WRONG, f"the place of {shadow.kind.NAME}", detail)]
        return [found for each in differences for found in _rows(shadow.kind, each)]

    async def _without_a_place(self, session: Connection, kind: type[Projection]) -> list[Discrepancy]:
        """One that has not begun has no rows: its relay begins at the log's beginning, and would count twice."""
        kept = []
        for each in kind.KEEPS:
            if await session.fetchval(f"SELECT EXISTS (SELECT FROM public.{each.table})"):  # noqa: S608  constants
                kept.append(each.table)
        if not kept:
            self.not_begun.append(kind.NAME)
            return []
        detail = f"it is gone, and there are rows in {', '.join(kept)}"
        return [Discrepancy(Code.PLACE_MISSING, f"the place of {kind.NAME}", detail)]


def _rows(kind: type[Projection], difference: Difference) -> Iterator[Discrepancy]:
    for row in difference.rows:
        code, detail = _named(row)
        yield Discrepancy(code, f"row {row.key} of {difference.table} of {kind.NAME}", detail)
    if max(difference.missing, difference.surplus) > len(difference.rows):
        code = Code.ROW_MISSING if difference.missing > difference.surplus else Code.ROW_SURPLUS
        detail = f"{difference.missing} rows that the log makes are not there, {difference.surplus} others are"
        yield Discrepancy(code, f"table {difference.table} of {kind.NAME}", detail)


def _named(row: WrongRow) -> tuple[Code, str]:
    if row.is_missing:
        return Code.ROW_MISSING, "the log makes it, and it is not there"
    if row.is_surplus:
        return Code.ROW_SURPLUS, "nothing in the log makes it"
    return Code.ROW_CHANGED, f"the log says otherwise: {', '.join(row.columns)}"
