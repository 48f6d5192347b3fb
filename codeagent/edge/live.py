"""Live events for those who watch: one tail of the topics, any number of subscribers, none of whom can slow it.

A subscriber that falls behind loses deltas first, and is told; durable events it reads from the log instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager

import orjson

from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_DELTAS
from codeagent.edge.feed import TenantFeeds
from codeagent.edge.joined import MOST_BUFFERED, Item, Subscriber, structured, subscriber
from codeagent.errors import CodeAgentError, Unreadable
from codeagent.eventlog.tenants import TenantLog
from codeagent.messages.envelope import from_headers, to_structured
from codeagent.messages.ids import run_stream
from codeagent.messages.values import ENDING_EVENTS
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

DRAIN_SECONDS = 5.0


class LiveHub:
    """Hands live records to the subscribers of their run, wakes the feed of their tenant, and tells subscribers when
    the log has something newer."""

    def __init__(self, log_reader: TenantLog, *, check_seconds: float = 15.0) -> None:
        self.feeds = TenantFeeds(log_reader, check_seconds=check_seconds)
        self._log = log_reader
        self._check_seconds = check_seconds
        self._subscribers: dict[str, set[Subscriber[int]]] = {}
        self._watchers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._check_regularly())

    @contextmanager
    def subscribe(self, run_id: str, cursor: int, transport: str) -> Iterator[Subscriber[int]]:
        made = subscriber(cursor, transport)
        self._subscribers.setdefault(run_id, set()).add(made)
        try:
            with metrics.STREAM_CONNECTIONS.labels(transport).track_inprogress():
                yield made
        finally:
            others = self._subscribers[run_id]
            others.discard(made)
            if not others:
                del self._subscribers[run_id]

    @contextmanager
    def watch(self, event: asyncio.Event) -> Iterator[None]:
        """Has an event set when streams should ask again whether they may go on."""
        self._watchers.add(event)
        try:
            yield
        finally:
            self._watchers.discard(event)

    def receive(self, record: LiveRecord) -> None:
        """Takes a record of the events or deltas topic. Called from the tail; must be quick and never wait."""
        subscribers = self._subscribers.get(record.key, ())
        if record.topic == RUN_DELTAS:
            for each in subscribers:
                _offer_delta(each, record.value)
            return
        if self.feeds.watched:
            self.feeds.wake(_tenant(record))
        if subscribers:
            item = _item(record)
            for each in subscribers:
                each.push(item)

    def reconnected(self) -> None:
        """The tail was away: whatever it missed is in the log."""
        self.feeds.wake_all()
        for subscribers in self._subscribers.values():
            for each in subscribers:
                each.behind = True
                each.wake.set()

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
        """One query compares every open run with the log, so that a missed last event leaves nobody hanging."""
        open_streams = [run_stream(run_id) for run_id in self._subscribers]
        if not open_streams:
            return
        heads = await self._log.heads(open_streams)
        for run_id, subscribers in self._subscribers.items():
            head = heads.get(run_stream(run_id), 0)
            for each in subscribers:
                if head > each.cursor:
                    each.behind = True
                    each.wake.set()

    def recheck(self) -> None:
        """Has every stream ask whether it may go on: to be called when a credential was revoked."""
        for subscribers in self._subscribers.values():
            for each in subscribers:
                each.wake.set()
        self.feeds.recheck()
        for event in self._watchers:
            event.set()

    async def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Ends every stream, telling clients to come back elsewhere, and waits until they have been told."""
        self.closing = True
        self.recheck()
        try:
            async with asyncio.timeout(drain_seconds):
                while self._subscribers or self._watchers or self.feeds.watched:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("streams.not_drained", runs=len(self._subscribers), connections=len(self._watchers))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class RunSource:
    """What one client follows of a run."""

    def __init__(self, log_reader: TenantLog, hub: LiveHub, tenant_id: str, run_id: str, *, transport: str) -> None:
        self._log = log_reader
        self._hub = hub
        self._tenant_id = tenant_id
        self._run_id = run_id
        self._transport = transport

    def subscribe(self, after: int) -> AbstractContextManager[Subscriber[int]]:
        return self._hub.subscribe(self._run_id, after, self._transport)

    async def read(self, after: int) -> AsyncIterator[Item[int]]:
        async for event in self._log.stream(self._tenant_id, run_stream(self._run_id), after):
            data = orjson.dumps(structured(event)).decode()
            yield Item(event.version - 1, event.version, event.type, data, self._run_id)

    def wants(self, item: Item[int]) -> bool:
        return True

    def ends_with(self, name: str) -> bool:
        return name in ENDING_EVENTS


def _offer_delta(each: Subscriber[int], value: bytes) -> None:
    if len(each.deltas) >= MOST_BUFFERED:
        each.deltas.popleft()
        each.dropped += 1
        metrics.STREAM_DROPPED.labels(each.transport).inc()
    each.deltas.append(value)
    each.wake.set()


def _tenant(record: LiveRecord) -> str:
    return next((value.decode(errors="replace") for name, value in record.headers if name == "ce_tenantid"), "")


def _item(record: LiveRecord) -> Item[int] | None:
    """None for a record that cannot be read: subscribers then look into the log."""
    try:
        envelope = from_headers(record.headers)
        document = orjson.loads(record.value)
    except (Unreadable, orjson.JSONDecodeError):
        return None
    if envelope.sequence is None:
        return None
    data = orjson.dumps(to_structured(envelope, document)).decode()
    return Item(envelope.sequence - 1, envelope.sequence, envelope.name, data, envelope.key)
