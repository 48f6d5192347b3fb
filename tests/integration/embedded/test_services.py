"""The servers that tests run against: the locator hands out real ones, and they survive what tests do to them."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from codeagent.embedded.broker import EmbeddedBroker
from tests.services.kafka import VERSION, ApacheKafka
from tests.services.postgres import PostgresCluster


async def _create(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def _produce(servers: str, topic: str, value: bytes, **options: Any) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, **options)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def _first(servers: str, topic: str) -> bytes:
    # The embedded broker lets a member in after half its session timeout.
    group = {"group_id": f"readers-of-{topic}", "session_timeout_ms": 2000, "heartbeat_interval_ms": 500}
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest", **group)
    await consumer.start()
    try:
        record = await asyncio.wait_for(consumer.getone(), 20)
    finally:
        await consumer.stop()
    assert record.value is not None
    return record.value


async def test_either_broker_carries_a_record_to_a_consumer_group(any_broker: EmbeddedBroker | ApacheKafka) -> None:
    servers = any_broker.bootstrap_servers
    await _create(servers, "carried")
    await _produce(servers, "carried", b"hello")
    assert await _first(servers, "carried") == b"hello"


async def test_apache_kafka_is_the_real_thing_and_says_which_version(apache_kafka: ApacheKafka) -> None:
    assert apache_kafka.version() == VERSION
    await _create(apache_kafka.bootstrap_servers, "idempotent")
    await _produce(apache_kafka.bootstrap_servers, "idempotent", b"once", enable_idempotence=True)
    assert await _first(apache_kafka.bootstrap_servers, "idempotent") == b"once"


async def test_apache_kafka_keeps_records_over_a_crash_and_its_address_too(apache_kafka: ApacheKafka) -> None:
    servers = apache_kafka.bootstrap_servers
    await _create(servers, "kept")
    await _produce(servers, "kept", b"still here", acks="all")
    apache_kafka.kill()
    assert not apache_kafka.is_alive()
    apache_kafka.restart()
    assert apache_kafka.bootstrap_servers == servers
    assert await _first(servers, "kept") == b"still here"


async def test_each_test_gets_a_copy_of_the_migrated_template() -> None:
    migrated: list[str] = []
    with PostgresCluster() as cluster:

        def migrate(url: str) -> None:
            migrated.append(url)
            cluster.sql("CREATE TABLE marker AS SELECT 1 AS one", url.rpartition("/")[2])
            cluster.sql("ALTER TABLE marker OWNER TO codeagent", url.rpartition("/")[2])

        cluster.prepare_template(migrate)
        cluster.prepare_template(migrate)
        for url in (cluster.new_database(), cluster.new_database()):
            connection = await asyncpg.connect(url)
            assert await connection.fetchval("SELECT count(*) FROM marker") == 1
            await connection.execute("DELETE FROM marker")
            await connection.close()
    assert len(migrated) == 1


@pytest.mark.parametrize(("name", "major"), [("postgres_18", "18."), ("postgres_15", "15.")])
def test_both_ends_of_the_supported_range_are_there(request: pytest.FixtureRequest, name: str, major: str) -> None:
    cluster: PostgresCluster = request.getfixturevalue(name)
    assert cluster.version().startswith(major)
