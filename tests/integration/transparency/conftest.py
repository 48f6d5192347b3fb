"""The same database as seen by one who may change everything, and whom no trigger holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from tests.services.postgres import PostgresCluster

Tamper = Callable[..., Awaitable[str]]
"""Runs a statement as superuser, triggers and foreign keys asleep."""


@pytest.fixture
async def tamper(any_postgres: PostgresCluster, database_url: str) -> AsyncIterator[Tamper]:
    connection = await asyncpg.connect(any_postgres.superuser_url(database_url.rsplit("/", 1)[1]))
    await connection.execute("SET session_replication_role = replica")
    yield connection.execute
    await connection.close()
