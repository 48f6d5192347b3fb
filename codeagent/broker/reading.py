"""A topic read where it lies, without a group: all that is in it at the moment, or from its end back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from codeagent.broker.admin import partition_counts
from codeagent.broker.connection import KafkaConnection
from codeagent.errors import Unavailable

_PATIENCE_SECONDS = 10.0
"""How long the broker may take for one answer."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record and where it lies."""

    topic: str
    partition: int
    offset: int
    value: bytes
    stored_ms: int
    """When, in milliseconds since 1970: as the broker has it, or as whoever has sent it says."""


async def read_topic(connection: KafkaConnection, topic: str) -> AsyncIterator[StoredRecord]:
    """The records that each partition has now, in order, and what comes while they are read. Raises `Unavailable` where
    there is no such topic, and when the broker does not answer."""
    async with _reading(connection, topic) as (consumer, partitions):
        begins, ends = await _bounds(consumer, partitions)
        async for batch in _between(consumer, begins, ends):
            for record in batch:
                yield _stored(record)


async def read_back(connection: KafkaConnection, topic: str, page: int) -> AsyncGenerator[list[StoredRecord], None]:
    """The records that each partition has now, `page` of each at a time, the newest page first; within one they are in
    order. Raises `Unavailable` as `read_topic` does."""
    async with _reading(connection, topic) as (consumer, partitions):
        begins, ends = await _bounds(consumer, partitions)
        while any(begins[each] < ends[each] for each in partitions):
            starts = {each: max(begins[each], ends[each] - page) for each in partitions}
            found: list[StoredRecord] = []
            async for batch in _between(consumer, starts, ends):
                # Of what comes with them, those beyond the end were there before, or are new.
                found += [_stored(each) for each in batch if each.offset < ends[_place(each)]]
            yield found
            ends = starts


@asynccontextmanager
async def _reading(
    connection: KafkaConnection, topic: str
) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """A consumer of all partitions of a topic. Raises `Unavailable` for whatever the broker does meanwhile."""
    count = (await partition_counts(connection, [topic]))[topic]
    partitions = [TopicPartition(topic, number) for number in range(count)]
    consumer = AIOKafkaConsumer(
        **connection.options(), enable_auto_commit=False, fetch_max_wait_ms=connection.fetch_wait_ms
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await consumer.start()
            consumer.assign(partitions)
        yield consumer, partitions
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"topic {topic} cannot be read", code="broker_unavailable") from error
    finally:
        await _stop(consumer)


async def _bounds(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Where each partition begins, and where it ends."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        return await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)


async def _between(
    consumer: AIOKafkaConsumer, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]
) -> AsyncIterator[list[ConsumerRecord]]:
    """What lies from the starts up to the ends, and what comes with it."""
    open_ends = {each: end for each, end in ends.items() if starts[each] < end}
    for partition, start in starts.items():
        consumer.seek(partition, start)
        (consumer.resume if partition in open_ends else consumer.pause)(partition)
    while open_ends:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            batch = await _next(consumer, open_ends)
        yield batch


def _place(record: ConsumerRecord) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


def _stored(record: ConsumerRecord) -> StoredRecord:
    return StoredRecord(record.topic, record.partition, record.offset, record.value or b"", record.timestamp)


async def _next(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> list[ConsumerRecord]:
    """More records, once there are some. Takes partitions that were read whole out of `ends`."""
    found: list[ConsumerRecord] = []
    while ends and not found:
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            found += records
        for partition in list(ends):
            if await consumer.position(partition) >= ends[partition]:
                consumer.pause(partition)
                del ends[partition]
    return found


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(3.0):
            await consumer.stop()
    except (KafkaError, OSError, TimeoutError):
        return
