"""Asks a provider again when that can help: honours its wish to wait, never outlasts its time, never after a cancel."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay

from codeagent.messages.conversation import Usage
from codeagent.providers.breaker import Admission, Breaker, CircuitOpen, outcome_of
from codeagent.providers.limits import CallLimiter, CallLimits, Leave
from codeagent.providers.protocol import (
    CallCanceled,
    ModelReply,
    ModelRequest,
    Price,
    Provider,
    ProviderError,
    TextSink,
)
from codeagent.providers.usage import estimate_input


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_elapsed_seconds` bounds attempts and waits: a wait that would pass it is not begun."""

    max_attempts: int = 3
    max_elapsed_seconds: float = 180.0
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 20.0


Admit = Callable[[ModelRequest], Awaitable[ModelRequest]]
"""Asked before every attempt. Gives the request that may be made of it, or raises `ProviderError`: it may not."""


async def unlimited(request: ModelRequest) -> ModelRequest:
    """The `Admit` of those who may spend what they like."""
    return request


class CallListener:
    """Hears of every attempt of a call. Numbers start at 1; listeners must not raise."""

    def waits(self, provider: str, *, for_leave: bool) -> None:
        """Whether the call does nothing but wait for the limits of a provider."""

    def attempt_started(self, provider: str, model: str, number: int) -> None: ...

    def attempt_failed(self, provider: str, model: str, number: int, error: ProviderError, seconds: float) -> None: ...

    def attempt_succeeded(self, provider: str, model: str, number: int, reply: ModelReply, seconds: float) -> None: ...


SILENT = CallListener()


@dataclass(frozen=True, slots=True)
class _Call:
    """What a caller wants, for how many seconds at most, and the numbers of its attempts."""

    request: ModelRequest
    on_text: TextSink
    listener: CallListener
    admit: Admit
    patience: float
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class ResilientProvider:
    """A `Provider` around another one, with retries and a breaker. The wrapped one stays its owner's to close."""

    def __init__(
        self,
        provider: Provider,
        breaker: Breaker,
        policy: RetryPolicy | None = None,
        *,
        limiter: CallLimiter | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = provider.name
        self.breaker = breaker
        self._provider = provider
        self._policy = policy or RetryPolicy()
        self._limiter = limiter or CallLimiter(provider.name, CallLimits())
        self._sleep = sleep

    def context_window(self, model: str) -> int:
        return self._provider.context_window(model)

    def price(self, model: str) -> Price | None:
        return self._provider.price(model)

    async def close(self) -> None:
        await self._provider.close()

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        listener: CallListener = SILENT,
        patience_seconds: float = math.inf,
        admit: Admit = unlimited,
    ) -> ModelReply:
        """As `Provider.generate`. `listener` hears of an attempt before it begins: text after that belongs to it. No
        attempt begins later than `patience_seconds` from now, for those who have somebody else to ask. Where a key was
        refused and there is another, that is an attempt at once, and none of those that the policy counts.

        Raises the last attempt's own ProviderError; CircuitOpen, at once, when the vendor is not to be called.
        """
        patience = min(patience_seconds, self._policy.max_elapsed_seconds)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._policy.max_attempts) | stop_before_delay(patience),
            wait=self._wait,
            retry=retry_if_exception(_worth_another),
            sleep=self._sleep,
            reraise=True,
        )
        call = _Call(request, on_text, listener, admit, patience)
        async for attempt in retrying:
            with attempt:
                return await self._with_any_key(call)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _with_any_key(self, call: _Call) -> ModelReply:
        end = time.monotonic() + call.patience
        while True:
            try:
                return await self._when_admitted(call)
            except ProviderError as error:
                if not error.has_other_key or not _worth_another(error) or time.monotonic() >= end:
                    raise

    async def _when_admitted(self, call: _Call) -> ModelReply:
        request = call.request
        self.breaker.check()
        most = estimate_input(request) + request.max_output_tokens
        call.listener.waits(self.name, for_leave=True)
        try:
            async with self._limiter.request(most, min(call.patience, request.timeout_seconds)) as leave:
                call.listener.waits(self.name, for_leave=False)
                admitted = await call.admit(request)
                admission = self.breaker.admit()
                leave.made, leave.tokens = True, most - request.max_output_tokens
                return await self._attempt(call, admitted, admission, leave)
        finally:
            call.listener.waits(self.name, for_leave=False)

    async def _attempt(self, call: _Call, request: ModelRequest, admission: Admission, leave: Leave) -> ModelReply:
        started, number, listener = time.monotonic(), next(call.numbers), call.listener
        listener.attempt_started(self.name, request.model, number)
        try:
            reply = await self._provider.generate(request, call.on_text)
        except ProviderError as error:
            self.breaker.record(admission, outcome_of(error), error.reason)
            leave.tokens = _tokens(error.usage) or leave.tokens
            listener.attempt_failed(self.name, request.model, number, error, time.monotonic() - started)
            raise
        except BaseException as ended:
            self.breaker.record(admission, "neutral")
            if isinstance(ended, CallCanceled):
                leave.tokens = _tokens(ended.error.usage)
                listener.attempt_failed(self.name, request.model, number, ended.error, time.monotonic() - started)
            raise
        self.breaker.record(admission, "success")
        leave.tokens = _tokens(reply.usage) or leave.tokens
        listener.attempt_succeeded(self.name, request.model, number, reply, time.monotonic() - started)
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


def _tokens(usage: Usage | None) -> int:
    """0 where nobody has counted them."""
    return 0 if usage is None else usage.input_tokens + usage.output_tokens


def _worth_another(error: BaseException) -> bool:
    """Only what the provider calls retryable, and nothing once somebody has asked this task to stop."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return False
    return isinstance(error, ProviderError) and error.retryable and not isinstance(error, CircuitOpen)
