"""The attacker of a module's log, whose address the module's fixture `attacked_url` gives."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest


@pytest.fixture
async def superuser(attacked_url: str) -> AsyncIterator[asyncpg.Connection]:
    """May change everything; what it changes is taken back after the test."""
    connection = await asyncpg.connect(attacked_url)
    await connection.execute("SET session_replication_role = replica")  # no trigger holds it
    change = connection.transaction()
    await change.start()
    yield connection
    await change.rollback()
    await connection.close()
