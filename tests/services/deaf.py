"""A database whose notifications are lost."""

from __future__ import annotations

import asyncpg

from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database


class DeafDatabase(Database):
    """Whoever would listen here hears nothing."""

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        raise Unavailable("no connection of one's own")
