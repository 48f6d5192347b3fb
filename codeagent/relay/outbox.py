"""Sends what commits have left in the ledgers: at once for rows handed over by this process, by sweep for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import EFFECT_TOPICS, RUN_EVENTS
from codeagent.errors import Unavailable
from codeagent.eventlog.effects import OutboxRow
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.sweep import DueRow, Sweeper
from codeagent.messages.catalog import encode_data
from codeagent.messages.envelope import Headers, Message, to_headers
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """Records of one key, sent in order. `row_id` is removed once all of them are with the broker."""

    topic: str
    key: str
    records: Sequence[tuple[Headers, bytes]]
    row_id: UUID | None = None


class OutboxPublisher:
    """Never blocks and never fails the one who hands rows over: what is not sent now, a sweep sends later."""

    def __init__(
        self, publisher: Publisher, sweeper: Sweeper, log_reader: EventLog, *, most_queued: int = 20_000
    ) -> None:
        self._publisher = publisher
        self._sweeper = sweeper
        self._log = log_reader
        self._most_queued = most_queued
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, list[_Outgoing]] = {}
        self._queued = 0
        self._removing: set[asyncio.Task[None]] = set()

    def events(self, row_id: UUID, key: str, events: Sequence[StoredEvent]) -> None:
        """Events just appended, for the world."""
        records = [(to_headers(event.envelope()), event.data) for event in events]
        self._hand(_Outgoing(RUN_EVENTS, key, records, row_id))

    def effect(self, kind: str, message: Message) -> None:
        """The command of an effect just written."""
        self._hand(self._single(EFFECT_TOPICS[kind], message))

    def answer(self, row: OutboxRow) -> None:
        """A message to our own agent worker; its row is removed by the transaction that handles it."""
        self._hand(self._single(row.topic, Message(row.envelope, row.data)))

    def _single(self, topic: str, message: Message) -> _Outgoing:
        envelope = message.envelope
        return _Outgoing(topic, envelope.key, [(to_headers(envelope), encode_data(message.data))])

    def _hand(self, outgoing: _Outgoing) -> None:
        if self._queued >= self._most_queued or not self._publisher.ready:
            return
        self._queued += 1
        lane = f"{outgoing.topic}/{outgoing.key}"
        if lane in self._sending:
            self._waiting.setdefault(lane, []).append(outgoing)
            return
        task = asyncio.get_running_loop().create_task(self._drain_lane(lane, outgoing))
        self._sending[lane] = task

    async def _drain_lane(self, lane: str, first: _Outgoing) -> None:
        batch = [first]
        try:
            while batch:
                for outgoing in batch:
                    self._queued -= 1
                    await self._send(outgoing)
                batch = self._waiting.pop(lane, [])
        finally:
            del self._sending[lane]

    async def _send(self, outgoing: _Outgoing) -> bool:
        try:
            await self._publisher.send_all(outgoing.topic, outgoing.key, outgoing.records)
        except Unavailable as error:
            log.warning("outbox.not_sent", topic=outgoing.topic, error=error.detail)
            return False
        if outgoing.row_id is not None:
            task = asyncio.get_running_loop().create_task(self._remove(outgoing.row_id))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)
        return True

    async def _remove(self, row_id: UUID) -> None:
        try:
            await self._sweeper.sent(row_id)
        except Unavailable:
            # The row stays and is sent again: readers drop repeats by the stream's version.
            log.warning("outbox.not_removed")

    async def sweep(self) -> int:
        """Sends what is due again; returns how much that was."""
        rows = await self._sweeper.due_messages()
        for row in rows:
            outgoing = await self._outgoing(row)
            if await self._send(outgoing):
                metrics.OUTBOX_RESENT.inc()
        timers = await self._sweeper.due_timers()
        for timer in timers:
            await self._send(self._single(EFFECT_TOPICS["timer"], timer))
        return len(rows) + len(timers)

    async def _outgoing(self, row: DueRow) -> _Outgoing:
        if row.value is not None:
            return _Outgoing(row.topic, row.key, [(row.headers, row.value)], row.id if row.goes_when_sent else None)
        assert row.stream_id is not None
        most = row.last_version - row.first_version + 1
        events = await self._log.read_stream(row.stream_id, row.first_version - 1, most)
        records = [(to_headers(event.envelope()), event.data) for event in events]
        return _Outgoing(row.topic, row.key, records, row.id)

    async def stop(self, timeout_seconds: float = 5.0) -> None:
        """Sends what is queued, within the time limit."""
        pending = [*self._sending.values(), *self._removing]
        if pending:
            await asyncio.wait(pending, timeout=timeout_seconds)
