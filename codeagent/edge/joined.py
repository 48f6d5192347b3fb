"""The one join of log and live that every stream is made of, whatever it follows and however it is sent.

A source orders its events by a position: a run by its version, a tenant's feed by its cursor. Each live item says which
position it follows, so that a client's stream knows a repeat (dropped) from a gap (read from the log).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import orjson

from codeagent.errors import CodeAgentError
from codeagent.eventlog.log import Cursor
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.envelope import to_structured
from codeagent.messages.results import Delta

P = TypeVar("P", int, Cursor)
MOST_BUFFERED = 1_000
HEARTBEAT_SECONDS = 15.0
LONGEST_SECONDS = 6 * 3600.0


def structured(event: StoredEvent) -> dict[str, Any]:
    """A stored event as one JSON object, as clients, pages and exports have it."""
    return to_structured(event.envelope(), event.document())


@dataclass(frozen=True, slots=True)
class Item(Generic[P]):
    """The stretch of a source from `after` to `position`, which holds this one event and nothing else.

    `data` is the structured CloudEvent as JSON, None where the stretch holds nothing that was asked for.
    """

    after: P
    position: P
    name: str = ""
    data: str | None = None
    run_id: str = ""


@dataclass(slots=True, eq=False)
class Subscriber(Generic[P]):
    """One open stream. `cursor` is the newest position its client has; `behind` says that the log has more."""

    cursor: P
    transport: str
    items: deque[Item[P]]
    deltas: deque[bytes]
    wake: asyncio.Event
    dropped: int = 0
    behind: bool = True

    def push(self, item: Item[P] | None) -> None:
        """Takes a live item; None stands for one that could not be read. A full buffer is left to the log."""
        if item is None or len(self.items) >= MOST_BUFFERED:
            self.items.clear()
            self.behind = True
        else:
            self.items.append(item)
        self.wake.set()


def subscriber(cursor: P, transport: str) -> Subscriber[P]:
    return Subscriber(cursor, transport, deque(), deque(), asyncio.Event())


class Source(Protocol[P]):
    """What is followed."""

    def subscribe(self, after: P) -> AbstractContextManager[Subscriber[P]]:
        """Buffers what comes live from now on."""

    def read(self, after: P) -> AsyncIterator[Item[P]]:
        """Everything beyond a position that the log has now, in order. Raises `CodeAgentError`."""

    def wants(self, item: Item[P]) -> bool:
        """Whether the client asked for an event."""

    def ends_with(self, name: str) -> bool:
        """Whether nothing follows an event of this name."""


class Kind(StrEnum):
    EVENT = "event"
    DELTA = "delta"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Frame:
    """What a client is told: JSON `data` under a `name`. Durable events have the `position` to resume from."""

    kind: Kind
    name: str
    data: str
    position: str | None = None


def control(name: str, data: Mapping[str, Any]) -> Frame:
    return Frame(Kind.CONTROL, name, orjson.dumps(data).decode())


class Life(Protocol):
    """How long a stream may go on."""

    def ended(self) -> str | None:
        """Why it may not, as `stream.end` tells it."""

    def seconds_left(self) -> float:
        """Until it certainly may not; infinite where nothing is known."""


class EventStream(Generic[P]):
    """What one client sees of a source: every position once, in order; deltas as they come, or never."""

    def __init__(
        self,
        source: Source[P],
        after: P,
        life: Life,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._source: Source[P] = source
        self._after: P = after
        self._life = life
        self._heartbeat = heartbeat_seconds
        self._reason: str | None = None
        self._subscriber: Subscriber[P] | None = None
        self._attempts: dict[str, int] = {}

    @property
    def ending(self) -> bool:
        """Whether `stream.end` is the next that is sent, or the next but one."""
        return self._reason is not None

    def finish(self, reason: str) -> None:
        """Ends the stream before its time: what is to be said last is `stream.end` with this reason."""
        self._reason = self._reason or reason
        if self._subscriber is not None:
            self._subscriber.wake.set()

    async def frames(self) -> AsyncGenerator[Frame]:
        """Subscribes first, then reads the log, then drains what came meanwhile: nothing can fall in between."""
        yield control("stream.open", {"position": str(self._after)})
        deadline = asyncio.get_running_loop().time() + LONGEST_SECONDS
        with self._source.subscribe(self._after) as subscriber:
            self._subscriber = subscriber
            while not self._over(deadline):
                async with aclosing(self._pending(subscriber)) as pending:
                    async for frame in pending:
                        yield frame
                        if self._over(deadline):
                            break
                if self._over(deadline):
                    break
                if not await self._woken(subscriber):
                    yield control("stream.heartbeat", {"position": str(subscriber.cursor)})
        yield control("stream.end", {"reason": self._reason})

    def _over(self, deadline: float) -> bool:
        if self._reason is None:
            self._reason = self._life.ended()
        if self._reason is None and asyncio.get_running_loop().time() > deadline:
            self._reason = "reconnect"
        return self._reason is not None

    async def _woken(self, subscriber: Subscriber[P]) -> bool:
        """Whether there is something to look at; after a heartbeat's time there is not."""
        left = self._life.seconds_left()
        try:
            async with asyncio.timeout(min(self._heartbeat, max(left, 0.0))):
                await subscriber.wake.wait()
        except TimeoutError:
            return left < self._heartbeat
        subscriber.wake.clear()
        return True

    async def _pending(self, subscriber: Subscriber[P]) -> AsyncGenerator[Frame]:
        while subscriber.items and not subscriber.behind:
            item = subscriber.items.popleft()
            if item.after > subscriber.cursor:
                subscriber.behind = True
            elif item.position > subscriber.cursor:
                # What was written before this event is shown before it.
                for delta in self._deltas(subscriber):
                    yield delta
                for frame in self._taken(subscriber, item):
                    yield frame
        if subscriber.behind:
            async for frame in self._from_log(subscriber):
                yield frame
        for delta in self._deltas(subscriber):
            yield delta

    async def _from_log(self, subscriber: Subscriber[P]) -> AsyncIterator[Frame]:
        subscriber.behind = False
        try:
            async for item in self._source.read(subscriber.cursor):
                for frame in self._taken(subscriber, item):
                    yield frame
        except CodeAgentError:
            # The stream outlives a database that is away: it looks again at the next heartbeat.
            subscriber.behind = True

    def _taken(self, subscriber: Subscriber[P], item: Item[P]) -> list[Frame]:
        subscriber.cursor = item.position
        if item.data is None or not self._source.wants(item):
            return []
        if self._source.ends_with(item.name):
            self._reason = self._reason or "run_ended"
        return [Frame(Kind.EVENT, item.name, item.data, str(item.position))]

    def _deltas(self, subscriber: Subscriber[P]) -> list[Frame]:
        """Those of an attempt that has been given up are left out: their text was begun again."""
        frames: list[Frame] = []
        if subscriber.dropped:
            dropped, subscriber.dropped = subscriber.dropped, 0
            frames.append(control("stream.lagging", {"dropped": dropped}))
        while subscriber.deltas:
            value = subscriber.deltas.popleft()
            try:
                delta = Delta.model_validate_json(value)
            except ValueError:
                continue
            effect = str(delta.effect_id)
            newest = self._attempts.get(effect, 0)
            if delta.attempt >= newest:
                self._attempts[effect] = delta.attempt
                frames.append(Frame(Kind.DELTA, delta.name, delta.model_dump_json()))
        return frames
