"""How an installation is doing, as its operators see it: no tenant's data, just how much of it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor


@dataclass(frozen=True, slots=True)
class ProjectionState:
    """`behind_seconds` is the age of the oldest event that has not been read; 0 where there is none."""

    name: str
    cursor: Cursor
    behind_seconds: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows of one ledger and kind: effects not yet answered, or messages of a topic on their way. `overdue` ones are
    sent again by the next sweep."""

    ledger: str
    kind: str
    waiting: int
    overdue: int
    oldest_seconds: float


async def projection_states(database: Database) -> Sequence[ProjectionState]:
    rows = await database.fetch("SELECT * FROM projections_v1()")
    return [
        ProjectionState(
            row["name"], Cursor(int(row["transaction_id"]), row["global_position"]), max(row["behind_seconds"], 0.0)
        )
        for row in rows
    ]


async def backlogs(database: Database) -> Sequence[Backlog]:
    rows = await database.fetch("SELECT * FROM backlog_v1()")
    return [Backlog(**dict(row)) for row in rows]


async def schema_version(database: Database) -> str:
    """The migration that the database is at."""
    [row] = await database.fetch("SELECT version_num FROM alembic_version")
    version: str = row[0]
    return version
