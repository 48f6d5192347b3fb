"""Notices between processes through PostgreSQL: quick, small, and never relied upon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

CANCELED = "effects_canceled"
"""Carries the id of a run whose effects should stop."""


async def listen(database: Database, channel: str, receive: Callable[[str], None]) -> None:
    """Calls `receive` with each notice's payload, for ever. Connects again; what is said meanwhile is lost."""

    def notified(*arguments: object) -> None:
        receive(str(arguments[-1]))

    while True:
        try:
            connection = await database.connect()
        except Unavailable:
            await asyncio.sleep(2.0)
            continue
        try:
            closed = asyncio.Event()
            connection.add_termination_listener(lambda *_, closed=closed: closed.set())
            await connection.add_listener(channel, notified)
            await closed.wait()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("notices.interrupted", channel=channel, error=type(error).__name__)
        finally:
            connection.terminate()
