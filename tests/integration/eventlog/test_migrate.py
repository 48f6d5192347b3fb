"""Bringing a database to the program's schema."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import asyncpg

from codeagent.eventlog.migrations import HEAD

UPGRADE = """
import asyncio, sys
from codeagent.eventlog import migrate
asyncio.run(migrate.upgrade(sys.argv[1]))
print([name for name in ("alembic", "sqlalchemy") if name in sys.modules])
"""


async def version(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        found: str = await connection.fetchval("SELECT version_num FROM alembic_version")
        return found
    finally:
        await connection.close()


async def upgraded(url: str) -> str:
    """What a process that upgrades had to load for it."""
    command = [sys.executable, "-c", UPGRADE, url]
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def test_a_database_behind_the_program_is_brought_to_its_schema_by_one_of_many(newest_database_url: str) -> None:
    connection = await asyncpg.connect(newest_database_url)
    await connection.execute("DROP OWNED BY CURRENT_USER CASCADE; CREATE SCHEMA IF NOT EXISTS public")
    await connection.close()
    await asyncio.gather(*(upgraded(newest_database_url) for _ in range(2)))
    assert await version(newest_database_url) == HEAD


async def test_a_database_that_is_up_to_date_costs_a_start_nothing(newest_database_url: str) -> None:
    assert await version(newest_database_url) == HEAD
    assert await upgraded(newest_database_url) == "[]"
