"""Live text is a courtesy: who listens badly misses it."""

from __future__ import annotations

import asyncio

import pytest

from codeagent.providers.sink import LossySink


async def test_text_is_passed_on_in_order() -> None:
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    sink = LossySink(listen)
    for text in ("a", "", "b"):
        await sink(text)
    assert heard == ["a", "b"]


async def test_a_listener_that_hangs_is_waited_for_once() -> None:
    calls = 0

    async def hang(_text: str) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(3600)

    sink = LossySink(hang, patience_seconds=0.01)
    for _ in range(3):
        await sink("text")
    assert calls == 1


async def test_what_a_listener_heard_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(text: str) -> None:
        raise ValueError(text)

    await LossySink(broken)("my private text")
    assert "ValueError" in caplog.text
    assert "private" not in caplog.text


async def test_a_cancellation_is_not_taken_for_a_failure() -> None:
    async def hang(_text: str) -> None:
        await asyncio.sleep(3600)

    task = asyncio.create_task(LossySink(hang)("text"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
