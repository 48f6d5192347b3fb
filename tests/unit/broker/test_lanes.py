"""Lanes: order within a key, no waiting between keys, and never an offset past an unfinished record."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from codeagent.broker.lanes import Lanes, OffsetTracker


def record(offset: int, key: str, partition: int = 0) -> Any:
    return SimpleNamespace(topic="t", partition=partition, offset=offset, key=key.encode())


@given(st.permutations(range(12)), st.integers(0, 12))
def test_the_offset_to_commit_is_never_past_an_unfinished_record(order: list[int], finished: int) -> None:
    tracker = OffsetTracker()
    for offset in range(12):
        assert tracker.started(offset)
    for offset in order[:finished]:
        tracker.finished(offset)
    unfinished = set(range(12)) - set(order[:finished])
    expected = min(unfinished, default=12)
    assert (tracker.committable or 0) == expected


def test_a_record_that_is_being_handled_is_not_begun_again() -> None:
    tracker = OffsetTracker()
    assert tracker.started(5)
    assert not tracker.started(5)
    tracker.finished(5)
    assert tracker.started(5)


async def test_a_key_keeps_its_order_and_a_stuck_key_holds_up_no_other() -> None:
    handled: list[int] = []
    release = asyncio.Event()

    async def handle(item: Any) -> None:
        if item.offset == 0:
            await release.wait()
        handled.append(item.offset)

    lanes = Lanes(handle)
    await lanes.dispatch([record(0, "a"), record(1, "b"), record(2, "a"), record(3, "c")])
    await asyncio.sleep(0.01)
    assert handled == [1, 3]
    assert lanes.committable() == {}
    release.set()
    assert await lanes.drain(1)
    assert handled == [1, 3, 0, 2]
    assert lanes.committable() == {TopicPartition("t", 0): 4}


async def test_too_many_records_in_flight_hold_the_consumer_back() -> None:
    release = asyncio.Event()

    async def handle(_: Any) -> None:
        await release.wait()

    lanes = Lanes(handle, most_in_flight=2)
    dispatching = asyncio.create_task(lanes.dispatch([record(n, str(n)) for n in range(5)]))
    await asyncio.sleep(0.01)
    assert not dispatching.done()
    assert lanes.in_flight == 2
    release.set()
    await dispatching
    assert await lanes.drain(1)


async def test_what_cannot_be_finished_in_time_is_abandoned_uncommitted() -> None:
    async def handle(_: Any) -> None:
        await asyncio.sleep(3600)

    lanes = Lanes(handle)
    await lanes.dispatch([record(0, "a")])
    assert not await lanes.drain(0.05)
    assert lanes.committable() == {}


async def test_a_revoked_partition_is_forgotten_and_the_others_go_on() -> None:
    release = asyncio.Event()
    handled: list[tuple[int, int]] = []

    async def handle(item: Any) -> None:
        await release.wait()
        handled.append((item.partition, item.offset))

    lanes = Lanes(handle)
    await lanes.dispatch([record(0, "a", 0), record(1, "a", 0), record(0, "b", 1)])
    gone = [TopicPartition("t", 0)]
    await lanes.revoke(gone, 0.05)
    lanes.forget(gone)
    release.set()
    assert await lanes.drain(1)
    assert sorted(handled) == [(0, 0), (1, 0)]
    assert lanes.committable() == {TopicPartition("t", 1): 1}
