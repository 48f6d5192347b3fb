"""A topic of its own for every test, on each kind of broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from codeagent.broker.admin import TopicAdmin, Wanted
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import dead_letter_topic
from codeagent.embedded.broker import EmbeddedBroker
from tests.services.kafka import ApacheKafka


@dataclass(frozen=True)
class Bench:
    """A connection to a broker, a topic on it, and what the tests do with them."""

    connection: KafkaConnection
    topic: str
    group: str
    publisher: Publisher
    broker: EmbeddedBroker | ApacheKafka

    async def send(self, key: str, value: bytes, headers: list[tuple[str, bytes]] | None = None) -> None:
        await self.publisher.send(self.topic, key, headers or [], value)

    async def read(self, topic: str, count: int, timeout_seconds: float = 15.0) -> list[ConsumerRecord]:
        """The first `count` records of a topic."""
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self.connection.bootstrap_servers,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        await consumer.start()
        found: list[ConsumerRecord] = []
        try:
            async with asyncio.timeout(timeout_seconds):
                while len(found) < count:
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        found += records
        finally:
            await consumer.stop()
        return found


async def eventually(holds: Callable[[], bool], timeout_seconds: float = 30.0) -> None:
    """Waits until something is so. Raises `TimeoutError`."""
    async with asyncio.timeout(timeout_seconds):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.fixture
async def bench(any_broker: EmbeddedBroker | ApacheKafka) -> AsyncIterator[Bench]:
    connection = KafkaConnection(
        any_broker.bootstrap_servers,
        "test",
        idempotent=isinstance(any_broker, ApacheKafka),
        fetch_wait_ms=20,
        timeout_seconds=3.0,
        session_timeout_ms=6_000,
    )
    topic, group = f"test.{uuid4().hex}.v1", f"group-{uuid4().hex}"
    admin = TopicAdmin(connection, replication=1, configurable=False)
    await admin.apply([Wanted(topic, 4, {}), Wanted(dead_letter_topic(topic, group), 1, {})])
    publisher = Publisher(connection)
    await publisher.start()
    yield Bench(connection, topic, group, publisher, any_broker)
    await publisher.stop()


def sole(connection: KafkaConnection) -> KafkaConnection:
    """The same connection for a member that shares with nobody."""
    return replace(connection, sole_member=True)
