"""Following topics live, without a group: every edge sees every record from now on, and commits nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from codeagent.broker.connection import KafkaConnection
from codeagent.broker.pace import FetchPace
from codeagent.messages.envelope import Headers
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LiveRecord:
    """A record as it came, for whoever does not know Kafka. Empty where the record had nothing."""

    topic: str
    key: str
    headers: Headers
    value: bytes


def _live(record: ConsumerRecord) -> LiveRecord:
    key = (record.key or b"").decode(errors="replace")
    return LiveRecord(record.topic, key, list(record.headers), record.value or b"")


class TopicTail:
    """Calls `receive` for each record, in order within a partition. What is missed while the broker is away is the
    receiver's to find out: the log has it."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Sequence[str],
        *,
        receive: Callable[[LiveRecord], None],
        reconnected: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._pace = FetchPace(connection.fetch_wait_ms)
        self._receive = receive
        self._reconnected = reconnected
        self._task: asyncio.Task[None] | None = None
        self.ready = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        delay = 0.1
        while True:
            consumer = AIOKafkaConsumer(
                **self._connection.options(),
                enable_auto_commit=False,
                auto_offset_reset="latest",
                fetch_max_wait_ms=self._connection.fetch_wait_ms,
                metadata_max_age_ms=10_000,
            )
            try:
                async with asyncio.timeout(10.0):
                    await consumer.start()
                    partitions = await self._assign(consumer)
                delay = 0.1
                self.ready = True
                self._reconnected()
                await self._pump(consumer, partitions)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("tail.interrupted", error=type(error).__name__)
            finally:
                self.ready = False
                await _stop(consumer)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _assign(self, consumer: AIOKafkaConsumer) -> set[TopicPartition]:
        partitions: set[TopicPartition] = set()
        for topic in self._topics:
            found = consumer.partitions_for_topic(topic)
            while not found:
                await consumer._client._wait_on_metadata(topic)
                found = consumer.partitions_for_topic(topic)
            partitions.update(TopicPartition(topic, number) for number in found)
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        return partitions

    async def _pump(self, consumer: AIOKafkaConsumer, partitions: set[TopicPartition]) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=1_000)
            self._pace.note(consumer, len(batches))
            for records in batches.values():
                for record in records:
                    self._receive(_live(record))
            if not batches and self._changed(consumer, partitions):
                return

    def _changed(self, consumer: AIOKafkaConsumer, partitions: set[TopicPartition]) -> bool:
        """Whether a topic was grown or made anew since: then everything is looked up again."""
        now = {
            TopicPartition(topic, number)
            for topic in self._topics
            for number in consumer.partitions_for_topic(topic) or ()
        }
        return now != partitions

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(3.0):
            await consumer.stop()
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("tail.stop_failed", error=type(error).__name__)
