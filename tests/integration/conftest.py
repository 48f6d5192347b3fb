"""A migrated database of its own for every test, cloned from a template."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from codeagent.embedded.broker import EmbeddedBroker
from codeagent.eventlog import migrate
from codeagent.eventlog.database import Database
from tests.integration.subject_keys import shared_keys
from tests.services.postgres import PostgresCluster


@pytest.fixture
def database_url(any_postgres: PostgresCluster) -> Iterator[str]:
    """Runs the test on every supported PostgreSQL."""
    any_postgres.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    url = any_postgres.new_database()
    yield url
    any_postgres.drop_database(url)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, connections=20)
    yield opened
    await opened.close()


@pytest.fixture
def newest_database_url(postgres_18: PostgresCluster) -> Iterator[str]:
    """For tests whose point is elsewhere: one PostgreSQL is enough."""
    postgres_18.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    url = postgres_18.new_database()
    yield url
    postgres_18.drop_database(url)


@pytest.fixture(scope="module")
def module_database_url(postgres_18: PostgresCluster) -> Iterator[str]:
    """One for all tests of a module, none of which looks at what another wrote."""
    postgres_18.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    url = postgres_18.new_database()
    yield url
    postgres_18.drop_database(url)


@pytest.fixture(scope="session", autouse=True)
def everything_personal_is_sealed() -> Iterator[None]:
    """Databases that are given no keys have some all the same: whatever works, works with sealed content."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codeagent.eventlog.database.SubjectKeys", shared_keys)
        yield


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """One that nobody else publishes checkpoints to."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-broker-"))
    directory.chmod(0o711)
    started = EmbeddedBroker(directory / "broker")
    started.start()
    yield started
    started.stop()
    shutil.rmtree(directory, ignore_errors=True)
