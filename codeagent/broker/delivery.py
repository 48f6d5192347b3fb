"""What happens to one record: decoded, handled, tried again within bounds, or dead-lettered with the reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiokafka import ConsumerRecord

from codeagent.broker.dead_letters import error_type, failure_headers
from codeagent.broker.publisher import Publisher, raw_headers
from codeagent.broker.topics import dead_letter_topic
from codeagent.errors import Unavailable, Unreadable
from codeagent.messages.catalog import decode
from codeagent.messages.envelope import Message
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

HandleMessage = Callable[[Message], Awaitable[None]]
GiveUp = Callable[[Message, Exception], Awaitable[None]]


class Delivery:
    """Calls `handle` for each record of a group's topics until it is done with it.

    `Unavailable` is tried again for as long as it takes: what is away comes back, and nothing may be lost meanwhile.
    Any other error is tried `attempts` times; then `give_up` may end what the message was about, and the record
    goes to the dead letters.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        group: str,
        handle: HandleMessage,
        give_up: GiveUp | None = None,
        attempts: int = 4,
        first_delay_seconds: float = 0.05,
    ) -> None:
        self._publisher = publisher
        self._group = group
        self._handle = handle
        self._give_up = give_up
        self._attempts = attempts
        self._first_delay = first_delay_seconds

    async def __call__(self, record: ConsumerRecord) -> None:
        started = time.perf_counter()
        try:
            message = decode(list(record.headers), record.value)
        except Unreadable as error:
            await self._dead_letter(record, error, 1)
            return
        failure = await self._attempt(message)
        if failure is not None:
            await self._dead_letter(record, failure, self._attempts)
        metrics.PROCESS_DURATION.labels(record.topic).observe(time.perf_counter() - started)

    async def _attempt(self, message: Message) -> Exception | None:
        attempt, delay = 1, self._first_delay
        while True:
            try:
                await self._handle(message)
            except Unavailable as error:
                log.warning("message.waits", name=message.envelope.name, error=error.detail)
            except Exception as error:
                log.exception("message.failed", name=message.envelope.name, attempt=attempt, key=message.envelope.key)
                if attempt >= self._attempts:
                    return await self._end(message, error)
                attempt += 1
            else:
                return None
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _end(self, message: Message, error: Exception) -> Exception:
        while self._give_up is not None:
            try:
                await self._give_up(message, error)
                break
            except Unavailable:
                await asyncio.sleep(1.0)
            except Exception:
                log.exception("message.give_up_failed", name=message.envelope.name, key=message.envelope.key)
                break
        return error

    async def _dead_letter(self, record: ConsumerRecord, error: Exception, attempts: int) -> None:
        """Until the broker has it: a record that is neither handled nor kept would be lost."""
        topic = dead_letter_topic(record.topic, self._group)
        said = failure_headers(record, self._group, error, attempts)
        key = (record.key or b"").decode(errors="replace")
        log.error("message.dead_lettered", topic=record.topic, offset=record.offset, error=error_type(error))
        metrics.DEAD_LETTERS.labels(record.topic, error_type(error)).inc()
        while True:
            try:
                await self._publisher.send(topic, key, [*raw_headers(record.headers), *said], record.value or b"")
            except Unavailable as unavailable:
                log.warning("dead_letter.waits", error=unavailable.detail)
                await asyncio.sleep(1.0)
            else:
                return
