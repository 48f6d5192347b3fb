"""The same database as seen by one who may change everything, and whom no trigger holds; and a topic for its
checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import AUDIT_CHECKPOINTS
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sweep import Sweeper
from codeagent.relay.outbox import OutboxPublisher
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.topic import TopicAnchor
from tests.integration.transparency.published import TAKEN_BACK, Published
from tests.integration.transparency.sealed import KEY, KEYS
from tests.services.postgres import PostgresCluster

Tamper = Callable[..., Awaitable[str]]
"""Runs a statement as superuser, triggers and foreign keys asleep."""


@pytest.fixture
async def tamper(any_postgres: PostgresCluster, database_url: str) -> AsyncIterator[Tamper]:
    connection = await asyncpg.connect(any_postgres.superuser_url(database_url.rsplit("/", 1)[1]))
    await connection.execute("SET session_replication_role = replica")
    yield connection.execute
    await connection.close()


@pytest.fixture
async def published(
    newest_database_url: str, own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Published]:
    """A topic with the checkpoint of a log of five entries, its second."""
    connection = KafkaConnection(own_broker.bootstrap_servers, "test", idempotent=False, fetch_wait_ms=20)
    await TopicAdmin(connection, replication=1, configurable=False).apply([Wanted(AUDIT_CHECKPOINTS, 1, {})])
    database, publisher = Database(newest_database_url, connections=2), Publisher(connection)
    await publisher.start()
    outbox, sealer = OutboxPublisher(publisher, Sweeper(database), EventLog(database)), Sealer(database, KEYS)
    anchorer = Anchorer(database, TopicAnchor(database, connection), KEYS, sealer.heard)
    made = Published(database, anchorer, sealer, outbox, connection)
    await made.grow(3)
    await made.grow(2)
    for name, value in {
        "DATABASE_URL": newest_database_url,
        "KAFKA_BOOTSTRAP_SERVERS": own_broker.bootstrap_servers,
        "KAFKA_IDEMPOTENT": "false",
        "AUDIT_SIGNING_KEY": KEY.secret(),
    }.items():
        monkeypatch.setenv(f"CODEAGENT_{name}", value)
    yield made
    await outbox.stop()
    await publisher.stop()
    await database.close()


@pytest.fixture
def take_back(postgres_18: PostgresCluster, newest_database_url: str) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        connection = await asyncpg.connect(postgres_18.superuser_url(newest_database_url.rsplit("/", 1)[1]))
        await connection.execute("SET session_replication_role = replica")
        for statement in TAKEN_BACK:
            await connection.execute(statement)
        await connection.close()

    return act
