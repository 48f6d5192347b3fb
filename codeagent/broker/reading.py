"""A topic read where it lies, without a group: all that is in it at the moment, or its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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


async def read_topic(
    connection: KafkaConnection, topic: str, *, last: int | None = None
) -> AsyncIterator[StoredRecord]:
    """The records that each partition has now, in order, and what comes while they are read; of each the `last` ones,
    where that is given, at least. Raises `Unavailable` where there is no such topic, and when the broker does not
    answer."""
    count = (await partition_counts(connection, [topic]))[topic]
    partitions = [TopicPartition(topic, number) for number in range(count)]
    consumer = AIOKafkaConsumer(
        **connection.options(), enable_auto_commit=False, fetch_max_wait_ms=connection.fetch_wait_ms
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await consumer.start()
            consumer.assign(partitions)
            ends = await _positions(consumer, partitions, last)
        while ends:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                batch = await _next(consumer, ends)
            for record in batch:
                yield StoredRecord(topic, record.partition, record.offset, record.value or b"")
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"topic {topic} cannot be read", code="broker_unavailable") from error
    finally:
        await _stop(consumer)


async def _positions(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], last: int | None
) -> dict[TopicPartition, int]:
    """Goes to where reading begins; returns where it ends, of the partitions that have anything to read."""
    begins = await consumer.beginning_offsets(partitions)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    for partition in partitions:
        begin, end = begins[partition], ends[partition]
        consumer.seek(partition, begin if last is None else max(begin, end - last))
        if begin == end:
            consumer.pause(partition)
            del ends[partition]
    return ends


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
