"""One lane a key: records of a key are handled in order, records of different keys beside each other.

Offsets are committed up to the lowest record that is not finished, so that a crash at any moment loses nothing and a
lane in trouble holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from aiokafka import ConsumerRecord, TopicPartition

Record: TypeAlias = ConsumerRecord
Handle = Callable[[Record], Awaitable[None]]


class OffsetTracker:
    """Which records of one partition are finished. `committable` is the offset to resume from."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self.committable: int | None = None

    def started(self, offset: int) -> bool:
        """False when the record is already being handled: a rebalance brought it twice."""
        if self._open and offset <= self._open[-1]:
            return offset not in self._open and self._insert(offset)
        self._open.append(offset)
        return True

    def _insert(self, offset: int) -> bool:
        self._open = deque(sorted((*self._open, offset)))
        return True

    def finished(self, offset: int) -> None:
        self._finished.add(offset)
        while self._open and self._open[0] in self._finished:
            done = self._open.popleft()
            self._finished.discard(done)
            self.committable = done + 1


@dataclass(slots=True)
class _Queued:
    partition: TopicPartition
    tracker: OffsetTracker
    record: Record


class Lanes:
    """Dispatches records to `handle`, which must not raise: what it does with a bad record is its own affair."""

    def __init__(self, handle: Handle, *, most_in_flight: int = 1_000) -> None:
        self._handle = handle
        self._most = most_in_flight
        self._lanes: dict[object, deque[_Queued]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._in_flight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False

    @property
    def in_flight(self) -> int:
        return self._in_flight

    async def dispatch(self, records: Iterable[Record]) -> None:
        """Queues records in their lanes; waits while too many are in flight, which holds the consumer back."""
        for record in records:
            await self._room.wait()
            if self._stopping:
                return
            partition = TopicPartition(record.topic, record.partition)
            tracker = self._trackers.setdefault(partition, OffsetTracker())
            if tracker.started(record.offset):
                self._enqueue(_Queued(partition, tracker, record))

    def _enqueue(self, item: _Queued) -> None:
        self._in_flight += 1
        self._idle.clear()
        if self._in_flight >= self._most:
            self._room.clear()
        key: object = item.record.key if item.record.key is not None else (item.partition, item.record.offset)
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(item)
            return
        self._lanes[key] = lane = deque((item,))
        task = asyncio.get_running_loop().create_task(self._run(key, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: object, lane: deque[_Queued]) -> None:
        while lane:
            item = lane[0]
            await self._handle(item.record)
            lane.popleft()
            item.tracker.finished(item.record.offset)
            self._left(1)
        del self._lanes[key]

    def _left(self, count: int) -> None:
        self._in_flight -= count
        if self._in_flight < self._most:
            self._room.set()
        if self._in_flight == 0:
            self._idle.set()

    def committable(self) -> dict[TopicPartition, int]:
        """The offset to commit of every partition where something was finished."""
        return {
            partition: tracker.committable
            for partition, tracker in self._trackers.items()
            if tracker.committable is not None
        }

    async def revoke(self, partitions: Iterable[TopicPartition], wait_seconds: float) -> None:
        """Forgets records that have not begun and gives the others a moment, before the partitions go elsewhere."""
        gone = set(partitions)
        for lane in self._lanes.values():
            waiting = [item for item in list(lane)[1:] if item.partition in gone]
            for item in waiting:
                lane.remove(item)
            self._left(len(waiting))
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while any(lane and lane[0].partition in gone for lane in self._lanes.values()):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops the books of partitions that are no longer ours; what still runs finishes unaccounted."""
        for partition in partitions:
            self._trackers.pop(partition, None)

    async def drain(self, timeout_seconds: float) -> bool:
        """Takes nothing more and waits for what runs; False when some of it had to be abandoned."""
        self._stopping = True
        self._room.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            return False
        return True
