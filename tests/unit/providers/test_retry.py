"""When a provider is asked again, after how long, and when not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from codeagent.messages.conversation import UserMessage
from codeagent.providers.breaker import Breaker, CircuitOpen
from codeagent.providers.protocol import ModelReply, ModelRequest, Price, ProviderError, TextSink
from codeagent.providers.retry import CallListener, ResilientProvider, RetryPolicy
from codeagent.providers.scripted import Answer, ScriptedProvider

REQUEST = ModelRequest(model="m", messages=(UserMessage(text="hi"),))


def error(reason: str = "overloaded", *, retryable: bool = True, after: float | None = None) -> ProviderError:
    return ProviderError(f"it {reason}", reason=reason, retryable=retryable, retry_after_seconds=after)


class Recorder(CallListener):
    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    @property
    def attempts(self) -> list[int]:
        return [number for what, number in self.heard if what == "started"]

    def attempt_started(self, provider: str, model: str, number: int) -> None:
        self.heard.append(("started", number))

    def attempt_failed(self, provider: str, model: str, number: int, error: ProviderError, seconds: float) -> None:
        self.heard.append((error.reason, number))

    def attempt_succeeded(self, provider: str, model: str, number: int, reply: ModelReply, seconds: float) -> None:
        self.heard.append(("succeeded", number))


class Subject:
    """A resilient provider over a script, with its waits recorded instead of waited."""

    def __init__(self, script: Sequence[Answer], policy: RetryPolicy | None = None, failures_to_open: int = 99) -> None:
        self.waits: list[float] = []
        self.listener = Recorder()
        self.inner = ScriptedProvider(script)
        self.breaker = Breaker("acme", failures_to_open=failures_to_open)
        self.provider = ResilientProvider(self.inner, self.breaker, policy, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    @property
    def attempts(self) -> list[int]:
        return self.listener.attempts

    async def ask(self, patience_seconds: float = math.inf) -> ModelReply:
        async def ignore(_text: str) -> None:
            return None

        return await self.provider.generate(REQUEST, ignore, self.listener, patience_seconds)


async def test_a_passing_failure_is_tried_again_and_every_attempt_is_announced() -> None:
    subject = Subject([error("overloaded"), error("timeout"), "fine"])
    assert (await subject.ask()).message.text == "fine"
    assert subject.attempts == [1, 2, 3]
    assert subject.listener.heard == [
        ("started", 1), ("overloaded", 1), ("started", 2), ("timeout", 2), ("started", 3), ("succeeded", 3),
    ]  # fmt: skip


async def test_three_attempts_are_enough_and_the_last_error_is_the_one_raised() -> None:
    subject = Subject([error("overloaded"), error("timeout"), error("connection"), "too late"])
    with pytest.raises(ProviderError) as raised:
        await subject.ask()
    assert raised.value.reason == "connection"
    assert subject.attempts == [1, 2, 3]


async def test_what_cannot_help_is_not_tried() -> None:
    subject = Subject([error("authentication", retryable=False), "never asked"])
    with pytest.raises(ProviderError, match="authentication"):
        await subject.ask()
    assert subject.attempts == [1]


async def test_waits_grow_and_vary() -> None:
    policy = RetryPolicy(max_attempts=5, first_wait_seconds=1.0, longest_wait_seconds=3.0)
    subject = Subject([error()] * 4 + ["fine"], policy)
    await subject.ask()
    for wait, ceiling in zip(subject.waits, (1, 2, 3, 3), strict=True):
        assert ceiling / 2 <= wait <= ceiling


async def test_a_vendors_wish_is_a_minimum() -> None:
    subject = Subject([error("rate_limited", after=7.0), "fine"])
    await subject.ask()
    assert 7.0 <= subject.waits[0] <= 8.0


async def test_a_wait_that_would_outlast_the_call_is_not_begun() -> None:
    subject = Subject([error("rate_limited", after=3600.0), "never"], RetryPolicy(max_elapsed_seconds=60.0))
    with pytest.raises(ProviderError) as raised:
        await subject.ask()
    assert raised.value.retry_after_seconds == 3600.0
    assert subject.waits == []


async def test_whoever_has_another_to_ask_waits_no_longer_than_their_patience() -> None:
    subject = Subject([error("rate_limited", after=40.0), "never"])
    with pytest.raises(ProviderError, match="rate_limited"):
        await subject.ask(patience_seconds=30.0)
    assert (subject.waits, subject.attempts) == ([], [1])


async def test_an_open_circuit_is_told_at_once() -> None:
    subject = Subject([error(), error(), "never"], failures_to_open=2)
    with pytest.raises(CircuitOpen):
        await subject.ask()
    assert subject.attempts == [1, 2]
    with pytest.raises(CircuitOpen):
        await subject.ask()
    assert subject.attempts == [1, 2]
    assert len(subject.inner.requests) == 2


class Stubborn:
    """A provider that answers a cancellation with a retryable error, as careless clients do."""

    name = "acme"

    def __init__(self) -> None:
        self.calls = 0

    def context_window(self, model: str) -> int:
        return 1000

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None:
        return None

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply:
        self.calls += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise error("connection") from None
        raise AssertionError


async def test_nothing_is_tried_after_a_cancellation_even_one_that_was_swallowed() -> None:
    stubborn = Stubborn()
    resilient = ResilientProvider(stubborn, Breaker("acme"))

    async def ignore(_text: str) -> None:
        return None

    task = asyncio.create_task(resilient.generate(REQUEST, ignore))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(ProviderError):
        await task
    assert stubborn.calls == 1


async def test_a_cancelled_call_does_not_count_against_the_vendor() -> None:
    resilient = ResilientProvider(ScriptedProvider(lambda _request: _never()), Breaker("acme", failures_to_open=1))

    async def ignore(_text: str) -> None:
        return None

    task = asyncio.create_task(resilient.generate(REQUEST, ignore))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert resilient.breaker.state == "closed"


def _never() -> Answer:
    from codeagent.providers.scripted import After

    return After(3600, "late")


async def test_every_attempt_is_admitted_and_what_is_not_ends_the_call() -> None:
    subject = Subject([error(), error(), "never"])
    asked: list[int] = []

    async def admit(request: ModelRequest) -> ModelRequest:
        asked.append(request.max_output_tokens)
        if len(asked) == 3:
            raise error("budget_exceeded", retryable=False)
        return replace(request, max_output_tokens=100 // len(asked))

    async def ignore(_text: str) -> None: ...

    with pytest.raises(ProviderError) as refused:
        await subject.provider.generate(REQUEST, ignore, subject.listener, admit=admit)
    assert refused.value.reason == "budget_exceeded"
    assert [request.max_output_tokens for request in subject.inner.requests] == [100, 50]
    assert asked == [REQUEST.max_output_tokens] * 3, "each is asked for the whole request"
