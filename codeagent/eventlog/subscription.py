"""Following the log as it grows: one stream, one category or all of it, from any place on.

subscription = of_category(log, "run", place)
async for event in subscription:
    await handle(event)
    place = subscription.cursor  # where to go on after it
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Generic, TypeVar

from codeagent.errors import Unavailable
from codeagent.eventlog.log import Cursor, EventLog, cursor_of
from codeagent.eventlog.stored import StoredEvent
from codeagent.rounds import FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

PAGE = 500
IDLE_SECONDS = 0.25
"""Between two looks at a log that has nothing new; as long as projections wait."""

Place = TypeVar("Place")


class Subscription(Generic[Place]):
    """Gives every event beyond a place once, in order, and waits for more until it is closed.

    `cursor` is the place after the event given last: a subscription from there goes on without gap or repeat. At most
    `page` events are held. A database that is away is waited for. Events come as they are stored, whether or not they
    can be read: `StoredEvent.decode` tells. For one reader at a time; any task may close it.
    """

    def __init__(
        self,
        read: Callable[[Place, int], Awaitable[Sequence[StoredEvent]]],
        place_of: Callable[[StoredEvent], Place],
        after: Place,
        *,
        page: int,
        idle_seconds: float,
    ) -> None:
        self.cursor = after
        self._read = read
        self._place_of = place_of
        self._page = page
        self._idle = idle_seconds
        self._after_failure = FIRST_PAUSE_SECONDS
        self._held: deque[StoredEvent] = deque()
        self._closed = asyncio.Event()

    def __aiter__(self) -> Subscription[Place]:
        return self

    async def __anext__(self) -> StoredEvent:
        while not self._closed.is_set():
            if self._held:
                event = self._held.popleft()
                self.cursor = self._place_of(event)
                return event
            await self._look()
        raise StopAsyncIteration

    async def _look(self) -> None:
        try:
            self._held.extend(await self._read(self.cursor, self._page))
            pause, self._after_failure = self._idle, FIRST_PAUSE_SECONDS
        except Unavailable as error:
            log.warning("subscription.waits", error=error.detail)
            pause, self._after_failure = self._after_failure, min(self._after_failure * 2, MOST_PAUSE_SECONDS)
        if not self._held:
            await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """Ends the iteration, at once where it waits for events. What is held has not been given: `cursor` is before
        it."""
        self._closed.set()


def of_stream(
    log_reader: EventLog, stream_id: str, after: int = 0, *, page: int = PAGE, idle_seconds: float = IDLE_SECONDS
) -> Subscription[int]:
    """Events of one stream with a version above `after`, in the order of their versions."""
    read = partial(log_reader.read_stream, stream_id)
    return Subscription(read, attrgetter("version"), after, page=page, idle_seconds=idle_seconds)


def of_category(
    log_reader: EventLog, category: str, after: Cursor, *, page: int = PAGE, idle_seconds: float = IDLE_SECONDS
) -> Subscription[Cursor]:
    """Events of the streams `<category>-...`, in the order of `EventLog.read_all`."""
    read = partial(log_reader.read_category, category)
    return Subscription(read, cursor_of, after, page=page, idle_seconds=idle_seconds)


def of_all(
    log_reader: EventLog, after: Cursor, *, page: int = PAGE, idle_seconds: float = IDLE_SECONDS
) -> Subscription[Cursor]:
    """Events of all streams, in the order of `EventLog.read_all`: that of their transactions' numbers. None is ever
    overtaken by one that commits later."""
    return Subscription(log_reader.read_all, cursor_of, after, page=page, idle_seconds=idle_seconds)
