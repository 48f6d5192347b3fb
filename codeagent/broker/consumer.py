"""A process's one subscriber: FastStream over aiokafka, in the shape that loses nothing.

Raw batches, so that one bad record harms no other; a lane a key; bounded retries and dead letters inside the handler;
the low watermark of finished offsets committed in the background.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka import TopicPartition as AssignedPartition
from faststream.kafka.message import KafkaAckableMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram512

from codeagent.broker.admin import partition_counts
from codeagent.broker.connection import KafkaConnection, KafkaSecurity
from codeagent.broker.lanes import Handle, Lanes
from codeagent.broker.pace import FetchPace
from codeagent.errors import Unavailable
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

COMMIT_EVERY_SECONDS = 1.0
REVOKE_WAIT_SECONDS = 5.0


class GroupConsumer:
    """Consumes topics as a member of a group. `handle` gets each record and must not raise."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Sequence[str],
        *,
        group: str,
        handle: Handle,
        most_in_flight: int = 1_000,
        drain_seconds: float = 10.0,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._group = group
        self._drain_seconds = drain_seconds
        self._pace = FetchPace(connection.fetch_wait_ms)
        self._lanes = Lanes(handle, most_in_flight=most_in_flight)
        self._broker: KafkaBroker | None = None
        self._subscriber: BatchSubscriber | None = None
        self._committed: dict[TopicPartition, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._consumed = {topic: metrics.CONSUMED.labels(topic) for topic in topics}

    @property
    def _consumer(self) -> AIOKafkaConsumer | None:
        return None if self._subscriber is None else self._subscriber.consumer

    @property
    def ready(self) -> bool:
        """Whether partitions have been assigned, which is when messages can arrive."""
        return self._consumer is not None and bool(self._consumer.assignment())

    async def start(self) -> None:
        """Begins to connect; does not wait for a broker that is away."""
        self._tasks = [asyncio.create_task(self._connect()), asyncio.create_task(self._commit_regularly())]

    async def _connect(self) -> None:
        delay = 0.1
        while True:
            broker = KafkaBroker(
                self._connection.bootstrap_servers,
                client_id=self._connection.client_id,
                security=_security(self._connection.security),
                graceful_timeout=1.0,
                logger=logging.getLogger("codeagent.faststream"),
                log_level=logging.DEBUG,
                allow_auto_create_topics=False,
            )
            try:
                self._subscribe(broker, await self._all_partitions())
                await broker.start()
            except (KafkaError, OSError, Unavailable) as error:
                log.warning("broker.unreachable", error=type(error).__name__, group=self._group)
                await _quietly(broker.stop(), 2.0)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
            else:
                self._broker = broker
                return

    async def _all_partitions(self) -> list[AssignedPartition]:
        """Every partition, for the sole member; none where the group is to share them out."""
        if not self._connection.sole_member:
            return []
        counts = await partition_counts(self._connection, self._topics)
        return [AssignedPartition(topic, number) for topic, count in counts.items() for number in range(count)]

    def _subscribe(self, broker: KafkaBroker, partitions: Sequence[AssignedPartition]) -> None:
        connection = self._connection
        subscriber = broker.subscriber(
            *(() if partitions else self._topics),
            partitions=partitions,
            batch=True,
            group_id=self._group,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=connection.fetch_wait_ms,
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=connection.session_timeout_ms,
            heartbeat_interval_ms=connection.session_timeout_ms // 4,
            max_poll_interval_ms=1_800_000,
            listener=None if partitions else _Listener(self),
            parser=self._parse,
            decoder=_decode_nothing,
        )
        # FastStream's own sleeps after a wait in vain, as long again: a record that comes meanwhile would lie there.
        subscriber.get_msg = self._next_batch  # type: ignore[method-assign]
        subscriber(self._receive)
        self._subscriber = subscriber

    async def _parse(self, records: Any, _: Any) -> KafkaMessage:
        """Keeps the records as they are: FastStream's own parser fails the batch on one header that is not UTF-8."""
        return KafkaAckableMessage(body=b"", raw_message=records, consumer=self._consumer)

    async def _next_batch(self, consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord, ...]:
        """Records as soon as there are any; empty after a while without, so that a stop is noticed."""
        batches = await consumer.getmany(timeout_ms=1_000, max_records=500)
        records = tuple(record for batch in batches.values() for record in batch)
        self._pace.note(consumer, len(records))
        return records

    async def _receive(self, message: KafkaMessage) -> None:
        records = message.raw_message
        assert isinstance(records, tuple)
        for record in records:
            self._consumed[record.topic].inc()
        await self._lanes.dispatch(records)

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_SECONDS)
            await self._commit()

    async def _commit(self) -> None:
        """A commit that fails costs repeats, never losses: it is tried again with the next one."""
        consumer = self._consumer
        if consumer is None:
            return
        assigned = consumer.assignment()
        due = {
            partition: offset
            for partition, offset in self._lanes.committable().items()
            if self._committed.get(partition) != offset and partition in assigned
        }
        if not due:
            return
        try:
            async with asyncio.timeout(5.0):
                await consumer.commit(due)
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("offsets.commit_failed", error=type(error).__name__, group=self._group)
        else:
            self._committed.update(due)

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        await self._lanes.revoke(partitions, REVOKE_WAIT_SECONDS)
        await self._commit()
        self._lanes.forget(partitions)
        for partition in partitions:
            self._committed.pop(partition, None)

    async def stop(self) -> None:
        """Finishes what has begun, commits it, leaves the group. Bounded, whatever the broker does."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lanes.drain(self._drain_seconds)
        await self._commit()
        if self._broker is not None:
            await _quietly(self._broker.stop(), 5.0)
            self._broker = None


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    def __init__(self, owner: GroupConsumer) -> None:
        self._owner = owner

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._owner.revoked(list(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        log.info("partitions.assigned", count=len(list(assigned)))


async def _decode_nothing(_: Any, __: Any) -> bytes:
    return b""


async def _quietly(stopping: Awaitable[Any], timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await stopping
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("broker.stop_failed", error=type(error).__name__)


def _security(wanted: KafkaSecurity | None) -> BaseSecurity | None:
    """As FastStream has it."""
    if wanted is None:
        return None
    if not wanted.username:
        return BaseSecurity(ssl_context=wanted.context)
    kind = SASLPlaintext if wanted.mechanism == "PLAIN" else SASLScram512
    return kind(wanted.username, wanted.password, ssl_context=wanted.context)
