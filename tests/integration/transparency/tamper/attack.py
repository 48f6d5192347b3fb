"""An attack of one who may change everything in the database, and how a verification has to call it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

import asyncpg

from codeagent.eventlog.stored import StoredEvent, from_row, leaf_of
from codeagent.transparency.tables import EVENT

Act = Callable[[asyncpg.Connection], Awaitable[object]]


@dataclass(frozen=True)
class Attack:
    """`named` are the findings, all of them and no other kind: the code, and what the place or the detail tells."""

    name: str
    act: str | Sequence[str] | Act
    named: Sequence[tuple[StrEnum, str]]
    anchored: bool = False
    """Whether it takes checkpoints kept elsewhere to see it."""

    async def strike(self, connection: asyncpg.Connection) -> None:
        if callable(self.act):
            await self.act(connection)
            return
        for statement in (self.act,) if isinstance(self.act, str) else self.act:
            await connection.execute(statement)


async def event_at(connection: asyncpg.Connection, position: int) -> StoredEvent:
    row = await connection.fetchrow(f"SELECT {EVENT} FROM events e WHERE global_position = $1", position)
    return from_row(row)


async def rewrite(connection: asyncpg.Connection, position: int, **changes: Any) -> None:
    """Changes an event and makes its own hashes agree with it again."""
    event = replace(await event_at(connection, position), **changes)
    event = replace(event, data_digest=sha256(event.data).digest())
    await connection.execute(
        """UPDATE events SET data = $2, data_digest = sha256($2), event_type = $3, tenant_id = $4, leaf_hash = $5
           WHERE global_position = $1""",
        position,
        event.data,
        event.type,
        event.tenant_id,
        leaf_of(event),
    )
