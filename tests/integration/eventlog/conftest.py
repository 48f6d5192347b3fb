"""The same database as seen by one who may change everything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from codeagent.eventlog.database import Database
from tests.services.postgres import PostgresCluster


@pytest.fixture
async def superuser(any_postgres: PostgresCluster, database_url: str) -> AsyncIterator[Database]:
    name = database_url.rsplit("/", 1)[1]
    opened = Database(any_postgres.superuser_url(name), connections=2)
    yield opened
    await opened.close()
