"""Brings a database to this program's schema."""

from __future__ import annotations

import asyncpg

from codeagent.eventlog.migrations import HEAD


async def upgrade(database_url: str) -> None:
    """Runs what is missing. Several processes may call it at once: one works, the others wait."""
    if await _version(database_url) == HEAD:
        return
    from codeagent.eventlog.migrations import runner  # noqa: PLC0415  most starts find nothing to do, and save a second

    await runner.run(database_url)


async def _version(database_url: str) -> str | None:
    """The schema that the database has; None for an empty one."""
    connection = await asyncpg.connect(database_url)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        version: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        return version
    finally:
        await connection.close()
