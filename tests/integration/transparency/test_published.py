"""Checkpoints in a topic: what they catch that nothing in the database can, and what stands in a record."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from typer.testing import CliRunner, Result

from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import AUDIT_CHECKPOINTS
from codeagent.cli.main import app
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sweep import Sweeper
from codeagent.messages.checkpoints import SCHEMA, TYPE
from codeagent.relay.outbox import OutboxPublisher
from codeagent.telemetry import metrics
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.checkpoints import open_checkpoint
from codeagent.transparency.sealer import Sealer, SealRefused
from codeagent.transparency.topic import TopicAnchor
from tests.integration.transparency.sealed import KEY, KEYS, ORIGIN, append_runs, newest, seal_all
from tests.services.postgres import PostgresCluster

TAKEN_BACK = (
    "DELETE FROM events WHERE global_position > 3",
    "DELETE FROM audit_leaves WHERE leaf_index >= 3",
    "DELETE FROM audit_checkpoints WHERE number > 1",
    "UPDATE audit_tiles SET hashes = substring(hashes FROM 1 FOR 96)",
    "DELETE FROM audit_anchors",
)
"""To where the log had three entries, as a backup of that time would have it."""


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """One that nobody else publishes checkpoints to."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-broker-"))
    directory.chmod(0o711)
    started = EmbeddedBroker(directory / "broker")
    started.start()
    yield started
    started.stop()
    shutil.rmtree(directory, ignore_errors=True)


@dataclass
class Published:
    """A log whose checkpoint is in the topic, and the way there."""

    database: Database
    anchorer: Anchorer
    sealer: Sealer
    outbox: OutboxPublisher
    connection: KafkaConnection

    async def grow(self, count: int) -> None:
        await append_runs(self.database, count)
        await seal_all(self.database, self.sealer)

    async def relay(self) -> None:
        async with asyncio.timeout(30):
            while (await Sweeper(self.database).pending())[0]:
                await self.outbox.sweep()
                await asyncio.sleep(0.01)

    async def records(self, count: int) -> list[ConsumerRecord]:
        consumer = AIOKafkaConsumer(
            AUDIT_CHECKPOINTS, bootstrap_servers=self.connection.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async with asyncio.timeout(15):
                return [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()


@pytest.fixture
async def published(
    newest_database_url: str, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Published]:
    """A topic with the checkpoint of a log of five entries, its second."""
    connection = KafkaConnection(broker.bootstrap_servers, "test", idempotent=False, fetch_wait_ms=20)
    await TopicAdmin(connection, replication=1, configurable=False).apply([Wanted(AUDIT_CHECKPOINTS, 1, {})])
    database, publisher = Database(newest_database_url, connections=2), Publisher(connection)
    await publisher.start()
    outbox, sealer = OutboxPublisher(publisher, Sweeper(database), EventLog(database)), Sealer(database, KEYS)
    anchorer = Anchorer(database, TopicAnchor(database, connection), KEYS, sealer.remember)
    made = Published(database, anchorer, sealer, outbox, connection)
    await made.grow(3)
    await made.grow(2)
    for name, value in {
        "DATABASE_URL": newest_database_url,
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
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


async def verify(*words: str) -> Result:
    """Beside the loop of the test: the command has one of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["audit", "verify", *words, "--data-dir", "/nowhere"])


def waiting() -> float:
    return metrics.AUDIT_UNANCHORED.labels("topic")._value.get()


async def test_a_record_is_the_note_itself_in_an_envelope_that_says_what_it_is(published: Published) -> None:
    signed = await newest(published.database)
    assert await published.anchorer.anchor()
    await published.relay()
    assert not await published.anchorer.anchor(), "it is there already"
    [record] = await published.records(1)
    headers = {name: value.decode() for name, value in record.headers}
    assert record.value == signed.note.encode()
    assert open_checkpoint(record.value.decode(), ORIGIN, [KEY.verifier]).size == 5
    assert re.fullmatch(SCHEMA["pattern"], record.value.decode())
    assert (record.key, headers["ce_type"], headers["ce_subject"]) == (ORIGIN.encode(), TYPE, ORIGIN)
    assert (headers["content-type"], headers["ce_tenantid"]) == ("text/plain; charset=utf-8", "installation")
    assert headers["ce_dataschema"] == SCHEMA["$id"]


async def test_a_checkpoint_waits_until_the_broker_has_it(published: Published) -> None:
    await published.anchorer.anchor()
    assert waiting() > 0
    await published.relay()
    await published.anchorer.anchor()
    assert waiting() == 0


async def test_a_log_that_was_taken_back_with_its_database_contradicts_the_topic(
    published: Published, take_back: Callable[[], Awaitable[None]]
) -> None:
    await published.anchorer.anchor()
    await published.relay()
    for words in ((), ("--anchors-from-topic",)):
        done = await verify(*words)
        assert done.exit_code == 0, done.output
    assert "5 entries, 3 checkpoints, 1 of them kept elsewhere" in done.stdout

    await take_back()
    assert (await verify()).exit_code == 0, "nothing in the database tells"
    done = await verify("--anchors-from-topic")
    assert done.exit_code == 1
    assert "FAILED log_truncated at record 0/0 of the topic: it covers 5 entries, and the log has 3" in done.stdout


async def test_such_a_log_is_not_continued_either(
    published: Published, take_back: Callable[[], Awaitable[None]]
) -> None:
    await published.anchorer.anchor()
    await published.relay()
    await take_back()
    sealer = Sealer(published.database, KEYS)  # of a relay that was started after that
    topic = TopicAnchor(published.database, published.connection)
    with pytest.raises(SealRefused, match="it had 5 entries and has 3"):
        await Anchorer(published.database, topic, KEYS, sealer.remember).anchor()
    assert metrics.AUDIT_REFUSED.labels("anchor_topic")._value.get() == 1
    with pytest.raises(SealRefused, match="it had 5 entries and has 3"):
        await sealer.seal()


async def test_without_the_topic_nothing_is_called_verified_and_nothing_anchored(
    published: Published, broker: EmbeddedBroker
) -> None:
    broker.stop()
    done = await verify("--anchors-from-topic")
    assert (done.exit_code, "the broker cannot be reached" in done.stderr) == (1, True), done.output
    with pytest.raises(Unavailable):
        await published.anchorer.anchor()
    assert waiting() > 0
