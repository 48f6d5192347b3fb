"""Asks a provider again when that can help: honours its wish to wait, never outlasts its time, never after a cancel."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay

from codeagent.providers.breaker import Admission, Breaker, CircuitOpen, outcome_of
from codeagent.providers.protocol import ModelReply, ModelRequest, Provider, ProviderError, TextSink


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_elapsed_seconds` bounds attempts and waits: a wait that would pass it is not begun."""

    max_attempts: int = 3
    max_elapsed_seconds: float = 180.0
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 20.0


class CallListener:
    """Hears of every attempt, for metrics and the log. Numbers start at 1; listeners must not raise."""

    def attempt_started(self, provider: str, model: str, number: int) -> None: ...

    def attempt_failed(self, provider: str, model: str, number: int, error: ProviderError, seconds: float) -> None: ...

    def attempt_succeeded(self, provider: str, model: str, number: int, reply: ModelReply, seconds: float) -> None: ...


class ResilientProvider:
    """A `Provider` around another one, with retries and a breaker. The wrapped one stays its owner's to close."""

    def __init__(
        self,
        provider: Provider,
        breaker: Breaker,
        policy: RetryPolicy | None = None,
        *,
        listener: CallListener | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = provider.name
        self.breaker = breaker
        self._provider = provider
        self._policy = policy or RetryPolicy()
        self._listener = listener or CallListener()
        self._sleep = sleep

    def context_window(self, model: str) -> int:
        return self._provider.context_window(model)

    async def close(self) -> None:
        await self._provider.close()

    async def generate(
        self, request: ModelRequest, on_text: TextSink, on_attempt: Callable[[int], None] | None = None
    ) -> ModelReply:
        """As `Provider.generate`. `on_attempt(n)` comes before attempt n: text after it belongs to that attempt.

        Raises the last attempt's own ProviderError; CircuitOpen, at once, when the vendor is not to be called.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._policy.max_attempts) | stop_before_delay(self._policy.max_elapsed_seconds),
            wait=self._wait,
            retry=retry_if_exception(_worth_another),
            sleep=self._sleep,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                number = attempt.retry_state.attempt_number
                admission = self.breaker.admit()
                if on_attempt is not None:
                    on_attempt(number)
                return await self._attempt(request, on_text, number, admission)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(self, request: ModelRequest, on_text: TextSink, number: int, admission: Admission) -> ModelReply:
        started = time.monotonic()
        self._listener.attempt_started(self.name, request.model, number)
        try:
            reply = await self._provider.generate(request, on_text)
        except ProviderError as error:
            self.breaker.record(admission, outcome_of(error))
            self._listener.attempt_failed(self.name, request.model, number, error, time.monotonic() - started)
            raise
        except BaseException:
            self.breaker.record(admission, "neutral")
            raise
        self.breaker.record(admission, "success")
        self._listener.attempt_succeeded(self.name, request.model, number, reply, time.monotonic() - started)
        return reply

    def _wait(self, state: RetryCallState) -> float:
        """Exponential with full jitter, but never sooner than the vendor asked."""
        ceiling = min(
            self._policy.longest_wait_seconds, self._policy.first_wait_seconds * 2 ** (state.attempt_number - 1)
        )
        jitter = random.uniform(ceiling / 2, ceiling)  # noqa: S311  # spreads load, guards nothing
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, ProviderError) else None
        return jitter if asked is None else asked + jitter / 2


def _worth_another(error: BaseException) -> bool:
    """Only what the provider calls retryable, and nothing once somebody has asked this task to stop."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return False
    return isinstance(error, ProviderError) and error.retryable and not isinstance(error, CircuitOpen)
