"""How often a provider is called, with how many tokens, and by how many at once."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from codeagent.messages.conversation import AssistantMessage, Usage, UserMessage
from codeagent.providers.breaker import Breaker, CircuitOpen
from codeagent.providers.limits import Bucket, CallLimiter, CallLimits
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.providers.scripted import After, Answer, ScriptedProvider

REQUEST = ModelRequest(model="m", messages=(UserMessage(text="x" * 400),), max_output_tokens=900)
"""About 100 tokens in, 900 out at most."""


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(round(seconds, 3))
        self.now += seconds


def limiter(clock: Clock, **limits: int) -> CallLimiter:
    return CallLimiter("acme", CallLimits(**limits), monotonic=clock, sleep=clock.sleep)


async def ask(limits: CallLimiter, *answers: Answer, breaker: Breaker | None = None, patience: float = 180.0) -> int:
    """One call; the number of requests that came to the provider."""
    left = list(answers) or [reply(50, 50)]
    provider = ScriptedProvider(lambda _: left.pop(0))
    guarded = ResilientProvider(provider, breaker or Breaker("acme"), RetryPolicy(max_attempts=1), limiter=limits)
    await guarded.generate(REQUEST, _ignore, patience_seconds=patience)
    return len(provider.requests)


async def _ignore(_text: str) -> None:
    return None


def reply(tokens_in: int, tokens_out: int) -> ModelReply:
    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
    return ModelReply(AssistantMessage(text="fine"), usage, Decimal(0))


def test_what_was_not_used_for_a_while_may_be_used_at_once_and_not_more() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    assert [bucket.take(1) for _ in range(60)] == [0.0] * 60
    assert [bucket.take(1), bucket.take(2)] == [pytest.approx(1.0), pytest.approx(3.0)]
    clock.now += 3_600
    assert bucket.take(60) == 0.0
    assert bucket.take(30) == pytest.approx(30.0)


async def test_requests_beyond_the_limit_wait_for_their_turn() -> None:
    clock = Clock()
    limits = limiter(clock, requests_per_minute=2)
    for _ in range(4):
        await ask(limits)
    assert clock.waits == [30.0, 30.0]


async def test_tokens_are_taken_as_estimated_and_given_back_as_counted() -> None:
    clock = Clock()
    limits = limiter(clock, tokens_per_minute=1_200)
    for _ in range(3):
        await ask(limits, reply(60, 40))
    assert clock.waits == [], "three calls of 1,000 tokens by estimate used 300 in fact"
    await ask(limits, reply(100, 900))
    await ask(limits, reply(60, 40))
    assert clock.waits == [pytest.approx(5.0, abs=0.5), pytest.approx(50.0, abs=0.5)]


async def test_a_call_that_would_wait_for_too_long_is_told_at_once_how_long() -> None:
    clock = Clock()
    limits = limiter(clock, requests_per_minute=1)
    await ask(limits)
    with pytest.raises(ProviderError) as raised:
        await ask(limits, patience=30.0)
    assert (raised.value.reason, raised.value.retryable) == ("rate_limited", True)
    assert raised.value.retry_after_seconds == pytest.approx(60.0)
    assert clock.waits == []
    await ask(limits, patience=60.0)
    assert clock.waits == [60.0], "and what it did not use is there for others"


async def test_a_failure_that_nobody_counted_costs_what_the_model_was_told() -> None:
    clock = Clock()
    limits = limiter(clock, tokens_per_minute=1_200)
    with pytest.raises(ProviderError):
        await ask(limits, ProviderError("no", reason="overloaded", retryable=True))
    await ask(limits, reply(100, 0))
    assert clock.waits == [], "1,200 less about 100 are enough for an estimate of 1,000"


async def test_an_open_circuit_uses_nothing_up_and_waits_for_nothing() -> None:
    clock = Clock()
    limits = limiter(clock, requests_per_minute=1)
    broken = Breaker("acme")
    broken.restore_open(0.0)
    for _ in range(3):
        with pytest.raises(CircuitOpen):
            await ask(limits, breaker=broken)
    assert await ask(limits) == 1
    assert clock.waits == []


async def test_no_more_than_so_many_are_called_at_once_and_a_canceled_one_gives_its_place_back() -> None:
    limits = CallLimiter("acme", CallLimits(concurrency=2))
    at_work: list[int] = []
    provider = ScriptedProvider(lambda _: at_work.append(1) or After(3_600, "late"))  # type: ignore[func-returns-value]
    guarded = ResilientProvider(provider, Breaker("acme"), limiter=limits)
    calls = [asyncio.create_task(guarded.generate(REQUEST, _ignore)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert len(at_work) == 2
    calls[0].cancel()
    async with asyncio.timeout(5):
        while len(at_work) < 3:
            await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_whoever_finds_no_place_in_time_may_ask_another_provider() -> None:
    limits = CallLimiter("acme", CallLimits(concurrency=1))
    async with limits.request(1, 1.0):
        with pytest.raises(ProviderError) as raised:
            await ask(limits, patience=0.05)
    assert raised.value.reason == "rate_limited"
    assert await ask(limits) == 1
