"""Rounds go on whatever happens in one of them, and do not press a server that is away."""

from __future__ import annotations

import asyncio

import pytest

from codeagent.errors import Unavailable
from codeagent.rounds import FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS, Rounds


class Script:
    """Rounds that end as they are told to; the pauses after them are noted and last no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: float | Exception) -> None:
        self.ends = list(ends)
        self.pauses: list[float] = []
        self.over = asyncio.Event()
        self._sleep = asyncio.sleep
        monkeypatch.setattr("codeagent.rounds.asyncio.sleep", self.pause)

    async def once(self) -> float:
        if not self.ends:
            self.over.set()
            await asyncio.Event().wait()
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self._sleep(0)

    async def played(self) -> list[float]:
        rounds = Rounds("test", self.once)
        await rounds.start()
        async with asyncio.timeout(5):
            await self.over.wait()
            await rounds.stop()
        return self.pauses


async def test_each_round_says_when_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Script(monkeypatch, 0.0, 7.0, 1.0).played() == [0.0, 7.0, 1.0]


async def test_failures_in_a_row_are_farther_and_farther_apart_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    away = [Unavailable("the database does not answer")] * 6
    pauses = await Script(monkeypatch, *away).played()
    assert pauses == [FIRST_PAUSE_SECONDS, 0.5, 1.0, MOST_PAUSE_SECONDS, MOST_PAUSE_SECONDS, MOST_PAUSE_SECONDS]


async def test_a_round_that_succeeds_ends_the_row_and_a_bug_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = await Script(monkeypatch, ZeroDivisionError(), KeyError("x"), 3.0, ZeroDivisionError()).played()
    assert pauses == [FIRST_PAUSE_SECONDS, 0.5, 3.0, FIRST_PAUSE_SECONDS]


async def test_stopping_ends_a_round_that_is_at_work() -> None:
    begun = asyncio.Event()

    async def endless() -> float:
        begun.set()
        await asyncio.Event().wait()
        return 0.0

    rounds = Rounds("test", endless)
    await rounds.start()
    async with asyncio.timeout(5):
        await begun.wait()
        await rounds.stop()
