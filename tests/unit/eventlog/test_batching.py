"""Natural batching: callers share statements, nobody waits for company, and one's error is his own batch's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from codeagent.eventlog.batching import Batcher


async def test_what_arrives_while_one_batch_runs_shares_the_next() -> None:
    batches: list[list[int]] = []
    release = asyncio.Event()

    async def perform(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        await release.wait()
        return [item * 2 for item in items]

    batcher = Batcher(perform, lanes=1)
    first = asyncio.create_task(batcher(1))
    await asyncio.sleep(0)
    others = [asyncio.create_task(batcher(number)) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    release.set()
    assert await first == 2
    assert await asyncio.gather(*others) == [4, 6, 8]
    assert batches == [[1], [2, 3, 4]]


async def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    async def perform(items: Sequence[int]) -> Sequence[int]:
        if 13 in items:
            raise ValueError("unlucky")
        return items

    batcher = Batcher(perform, lanes=1)
    with pytest.raises(ValueError, match="unlucky"):
        await batcher(13)
    assert await batcher(1) == 1


async def test_a_caller_that_leaves_takes_nobody_along() -> None:
    async def perform(items: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0.01)
        return items

    batcher = Batcher(perform, lanes=1)
    leaving, staying = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 2


async def test_no_batch_is_larger_than_asked() -> None:
    sizes: list[int] = []

    async def perform(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        await asyncio.sleep(0)
        return items

    batcher = Batcher(perform, most=10, lanes=1)
    await asyncio.gather(*(batcher(number) for number in range(55)))
    assert max(sizes) <= 10
    assert sum(sizes) == 55
