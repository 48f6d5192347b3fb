"""The feed of a tenant, live: one reader of the log a tenant, woken by the topic, for all who follow it here.

Records of the topic have no place in the order of the whole log, so they only say that there is something to read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import orjson

from codeagent.edge.joined import Item, Subscriber, structured, subscriber
from codeagent.errors import CodeAgentError
from codeagent.eventlog.feed import EVERYTHING, FeedPage, Wanted
from codeagent.eventlog.log import Cursor, cursor_of
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import TenantLog
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

PAGE = 200
SOONEST_SECONDS = 0.02
LATEST_SECONDS = 0.5


def item_of(event: StoredEvent, after: Cursor) -> Item[Cursor]:
    return Item(after, cursor_of(event), event.type, orjson.dumps(structured(event)).decode(), event.metadata["runid"])


class TenantFeeds:
    """The feeds that somebody follows."""

    def __init__(self, log_reader: TenantLog, *, check_seconds: float) -> None:
        self._log = log_reader
        self._check_seconds = check_seconds
        self._feeds: dict[str, _Feed] = {}

    @property
    def watched(self) -> int:
        return len(self._feeds)

    @contextmanager
    def subscribe(self, tenant_id: str, after: Cursor, transport: str) -> Iterator[Subscriber[Cursor]]:
        made = subscriber(after, transport)
        feed = self._feeds.get(tenant_id)
        if feed is None:
            feed = self._feeds[tenant_id] = _Feed(self._log, tenant_id, self._check_seconds)
            feed.task = asyncio.create_task(feed.run())
        feed.subscribers.add(made)
        try:
            with metrics.STREAM_CONNECTIONS.labels(transport).track_inprogress():
                yield made
        finally:
            feed.subscribers.discard(made)
            if not feed.subscribers and feed.task is not None:
                feed.task.cancel()
                del self._feeds[tenant_id]

    def wake(self, tenant_id: str) -> None:
        """A run of this tenant has new events."""
        feed = self._feeds.get(tenant_id)
        if feed is not None:
            feed.woken.set()

    def wake_all(self) -> None:
        for feed in self._feeds.values():
            feed.woken.set()

    def recheck(self) -> None:
        for feed in self._feeds.values():
            for each in feed.subscribers:
                each.wake.set()


@dataclass(slots=True, eq=False)
class _Feed:
    """Reads on from where it is, and hands each event to all subscribers. Who is not there yet reads alone."""

    log_reader: TenantLog
    tenant_id: str
    check_seconds: float
    subscribers: set[Subscriber[Cursor]] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    _read_to: Cursor | None = None
    _newest: Cursor = field(default_factory=Cursor)
    _goal: int = 0

    async def run(self) -> None:
        wait, again = 0.0, SOONEST_SECONDS
        while True:
            woken = await self._wait(wait)
            try:
                settled = await self._read(woken)
            except CodeAgentError as error:
                log.warning("feed.waits", error=error.detail)
                settled = False
            except Exception:
                log.exception("feed.failed")
                settled = False
            again = SOONEST_SECONDS if settled or woken else min(again * 2, LATEST_SECONDS)
            wait = self.check_seconds if settled else again

    async def _wait(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True

    async def _read(self, woken: bool) -> bool:
        """Hands out what is new. False while something that was there at the last wake may still be held back by a
        transaction that began before it: then it is looked for again soon."""
        if self._read_to is None:
            self._read_to = self._newest = (await self.log_reader.horizon()).cursor
            self._have_all_look()
            woken = True
        while True:
            page = await self.log_reader.feed(self.tenant_id, self._read_to, PAGE)
            self._hand_out(page)
            if woken:
                self._goal, woken = page.horizon.newest, False
            if not page.more:
                return page.horizon.settled >= self._goal

    def _have_all_look(self) -> None:
        """Those who came before this reader had a place to begin may have looked before that place was settled."""
        for each in self.subscribers:
            each.behind = True
            each.wake.set()

    def _hand_out(self, page: FeedPage) -> None:
        for event in page.events:
            item = item_of(event, self._newest)
            self._newest = item.position
            for each in self.subscribers:
                each.push(item)
        self._read_to = page.cursor


class FeedSource:
    """What one client follows of its tenant's feed."""

    def __init__(
        self, log_reader: TenantLog, feeds: TenantFeeds, tenant_id: str, wanted: Wanted = EVERYTHING, *, transport: str
    ) -> None:
        self._log = log_reader
        self._feeds = feeds
        self._tenant_id = tenant_id
        self._wanted = wanted
        self._transport = transport

    def subscribe(self, after: Cursor) -> AbstractContextManager[Subscriber[Cursor]]:
        return self._feeds.subscribe(self._tenant_id, after, self._transport)

    async def read(self, after: Cursor) -> AsyncIterator[Item[Cursor]]:
        more = True
        while more:
            page = await self._log.feed(self._tenant_id, after, PAGE, self._wanted)
            for event in page.events:
                yield item_of(event, after)
                after = cursor_of(event)
            # What was looked at in vain need not be looked at again.
            yield Item(after, page.cursor)
            after, more = page.cursor, page.more

    def wants(self, item: Item[Cursor]) -> bool:
        return self._wanted.has(item.name, item.run_id)

    def ends_with(self, name: str) -> bool:
        return False
