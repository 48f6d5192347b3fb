"""Live events for those who watch: one tail of the topics, any number of subscribers, none of whom can slow it.

A subscriber that falls behind loses deltas first, and is told; durable events it reads from the log instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import orjson

from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_DELTAS
from codeagent.errors import CodeAgentError, Unreadable
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.principal import Principal
from codeagent.messages.envelope import from_headers, to_structured
from codeagent.messages.ids import run_stream
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_BUFFERED = 1_000


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """A durable event as a client is told it: `name` and the structured CloudEvent."""

    version: int
    name: str
    data: str


@dataclass(slots=True, eq=False)
class Subscriber:
    """One open stream. `cursor` is the newest version its client has; `behind` says that the log has more; `ending`
    why the stream is to end, where it is."""

    run_id: str
    caller: Principal
    cursor: int
    events: deque[LiveEvent]
    deltas: deque[bytes]
    dropped: int = 0
    behind: bool = False
    ending: str = ""
    wake: asyncio.Event | None = None

    def signal(self) -> None:
        if self.wake is not None:
            self.wake.set()

    def end(self, reason: str) -> None:
        self.ending = self.ending or reason
        self.signal()


def _nobody(_: Principal) -> bool:
    return False


class LiveHub:
    """Hands live records to the subscribers of their run, and tells them when the log has something newer.

    `revoked` says whether a caller's credential has been; call `end_revoked` when more of them are.
    """

    def __init__(
        self, log_reader: TenantLog, *, revoked: Callable[[Principal], bool] = _nobody, check_seconds: float = 15.0
    ) -> None:
        self._log = log_reader
        self._revoked = revoked
        self._check_seconds = check_seconds
        self._subscribers: dict[str, set[Subscriber]] = {}
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._check_regularly())

    @contextmanager
    def subscribe(self, run_id: str, caller: Principal, cursor: int) -> Iterator[Subscriber]:
        subscriber = Subscriber(run_id, caller, cursor, deque(), deque(), wake=asyncio.Event())
        self._subscribers.setdefault(run_id, set()).add(subscriber)
        if self._revoked(caller):  # after the request was let in, and before there was anybody to tell
            subscriber.end("revoked")
        metrics.STREAM_CONNECTIONS.labels("sse").inc()
        try:
            yield subscriber
        finally:
            metrics.STREAM_CONNECTIONS.labels("sse").dec()
            others = self._subscribers[run_id]
            others.discard(subscriber)
            if not others:
                del self._subscribers[run_id]

    def receive(self, record: LiveRecord) -> None:
        """Takes a record of the events or deltas topic. Called from the tail; must be quick and never wait."""
        subscribers = self._subscribers.get(record.key)
        if not subscribers:
            return
        if record.topic == RUN_DELTAS:
            for subscriber in subscribers:
                self._delta(subscriber, record.value)
        else:
            event = _live_event(record)
            for subscriber in subscribers:
                self._event(subscriber, event)

    def _event(self, subscriber: Subscriber, event: LiveEvent | None) -> None:
        if event is None or len(subscriber.events) >= MOST_BUFFERED:
            subscriber.events.clear()
            subscriber.behind = True
        else:
            subscriber.events.append(event)
        subscriber.signal()

    def _delta(self, subscriber: Subscriber, value: bytes) -> None:
        if len(subscriber.deltas) >= MOST_BUFFERED:
            subscriber.deltas.popleft()
            subscriber.dropped += 1
            metrics.STREAM_DROPPED.labels("sse").inc()
        subscriber.deltas.append(value)
        subscriber.signal()

    def reconnected(self) -> None:
        """The tail was away: whatever it missed is in the log."""
        for subscriber in self._everybody():
            subscriber.behind = True
            subscriber.signal()

    def end_revoked(self) -> None:
        """Ends the streams of callers whose credentials are revoked."""
        for subscriber in self._everybody():
            if self._revoked(subscriber.caller):
                subscriber.end("revoked")

    def _everybody(self) -> Iterator[Subscriber]:
        return chain.from_iterable(self._subscribers.values())

    async def _check_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                await self.check()
            except CodeAgentError as error:
                log.warning("streams.check_waits", error=error.detail)
            except Exception:
                log.exception("streams.check_failed")

    async def check(self) -> None:
        """One query compares every open stream with the log, so that a missed last event leaves nobody hanging."""
        open_streams = [run_stream(run_id) for run_id in self._subscribers]
        if not open_streams:
            return
        heads = await self._log.heads(open_streams)
        for run_id, subscribers in self._subscribers.items():
            head = heads.get(run_stream(run_id), 0)
            for subscriber in subscribers:
                if head > subscriber.cursor:
                    subscriber.behind = True
                    subscriber.signal()

    async def stop(self) -> None:
        """Ends every stream, telling clients to come back elsewhere."""
        self.closing = True
        for subscriber in self._everybody():
            subscriber.end("reconnect")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _live_event(record: LiveRecord) -> LiveEvent | None:
    """None for a record that cannot be read: subscribers then look into the log."""
    try:
        envelope = from_headers(record.headers)
        document = orjson.loads(record.value)
    except (Unreadable, orjson.JSONDecodeError):
        return None
    if envelope.sequence is None:
        return None
    return LiveEvent(envelope.sequence, envelope.name, orjson.dumps(to_structured(envelope, document)).decode())
