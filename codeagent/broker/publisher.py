"""The one way out to Kafka: acknowledged by all replicas, within a time limit, or an error that says what is known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, RequestTimedOutError, UnknownTopicOrPartitionError
from prometheus_client import Counter

from codeagent.broker.connection import KafkaConnection
from codeagent.errors import OutcomeUnknown, Unavailable
from codeagent.messages.envelope import Headers
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_BYTES = 1_148_576
"""As dead-letter topics take it: the largest record of any other topic, and what is said of its failure."""


class Publisher:
    """Sends records. Connects by itself, also after the broker was away; `ready` says whether it has."""

    def __init__(self, connection: KafkaConnection, *, linger_ms: int = 0) -> None:
        self._connection = connection
        self._timeout = connection.timeout_seconds
        self._linger_ms = linger_ms
        self._producer: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._sent: dict[str, Counter] = {}

    @property
    def ready(self) -> bool:
        return self._producer is not None

    async def start(self) -> None:
        """Begins to connect; does not wait for a broker that is away."""
        self._connecting = asyncio.create_task(self._connect())
        await asyncio.wait({self._connecting}, timeout=self._timeout)

    async def _connect(self) -> None:
        delay = 0.1
        while True:
            producer = AIOKafkaProducer(
                **self._connection.options(),
                acks="all",
                enable_idempotence=self._connection.idempotent,
                linger_ms=self._linger_ms,
                request_timeout_ms=int(self._timeout * 1_000),
                metadata_max_age_ms=30_000,
                retry_backoff_ms=50,
                max_request_size=MOST_BYTES,
            )
            try:
                async with asyncio.timeout(self._timeout):
                    await producer.start()
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("broker.unreachable", error=type(error).__name__)
                await _stop(producer, 1.0)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
            else:
                self._producer = producer
                return

    async def send(self, topic: str, key: str, headers: Headers, value: bytes) -> None:
        """Returns once the broker has the record. Raises `OutcomeUnknown` after the time limit, when it may or may
        not have it, and `Unavailable` when it certainly has not."""
        await self.send_all(topic, key, ((headers, value),))

    async def send_all(self, topic: str, key: str, records: Sequence[tuple[Headers, bytes]]) -> None:
        """Sends records of one key in order, confirmed together. Raises as `send` does."""
        producer = self._producer
        if producer is None:
            raise Unavailable("the broker cannot be reached", code="broker_unavailable")
        raw_key = key.encode()
        try:
            async with asyncio.timeout(self._timeout):
                delivered = [
                    await producer.send(topic, value, key=raw_key, headers=headers) for headers, value in records
                ]
                for future in delivered:
                    await asyncio.shield(future)
        except (TimeoutError, KafkaTimeoutError, RequestTimedOutError) as error:
            raise OutcomeUnknown("the broker did not confirm in time") from error
        except UnknownTopicOrPartitionError as error:
            raise Unavailable(f"the broker has no topic {topic}", code="broker_unavailable") from error
        except (KafkaError, OSError) as error:
            raise OutcomeUnknown(f"the broker did not confirm ({type(error).__name__})") from error
        self._count(topic, len(records))

    async def send_unconfirmed(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
        """Hands a record over without waiting for the broker; silently lost when it is away. For deltas only."""
        producer = self._producer
        if producer is None:
            return
        try:
            async with asyncio.timeout(0.25):
                delivered = await producer.send(topic, value, key=key.encode(), headers=headers)
        except (KafkaError, OSError, TimeoutError):
            return
        delivered.add_done_callback(_ignore)
        self._count(topic, 1)

    def _count(self, topic: str, records: int) -> None:
        counter = self._sent.get(topic)
        if counter is None:
            counter = self._sent[topic] = metrics.SENT.labels(topic)
        counter.inc(records)

    async def stop(self) -> None:
        """Ends within the time limit, whatever the broker does."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await _stop(producer, self._timeout)


def _ignore(future: asyncio.Future[object]) -> None:
    if not future.cancelled():
        future.exception()


async def _stop(producer: AIOKafkaProducer, timeout_seconds: float) -> None:
    # An idempotent producer waits for ever on a dead broker, so stopping it is cut off too.
    stopping = asyncio.ensure_future(producer.stop())
    done, _ = await asyncio.wait({stopping}, timeout=timeout_seconds)
    if not done:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
    else:
        _ignore(stopping)


def raw_headers(headers: Sequence[tuple[str, bytes]] | None) -> Headers:
    """A consumed record's headers in the shape they are sent in."""
    return list(headers or ())
