"""How much of a provider one process uses: requests and tokens a minute, and calls at once.

Each process counts for itself. Of a vendor's limit each of several workers is given its part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from codeagent.providers.protocol import ProviderError

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class CallLimits:
    """None: as many as come. `concurrency` is how many are at work at once: a slow provider is not sent more."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class Bucket:
    """Lets `per_minute` through in the long run, and as many at once after a pause. Whoever takes more than there is
    waits until it is: in the order in which they came, and nobody for ever, however much they take."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = self._level = float(per_minute)
        self._monotonic = monotonic
        self._at = monotonic()

    def take(self, amount: float) -> float:
        """Takes it, and says after how many seconds it may be used."""
        now = self._monotonic()
        self._level = min(self._most, self._level + (now - self._at) * self._most / _MINUTE) - amount
        self._at = now
        return max(0.0, -self._level) * _MINUTE / self._most

    def give_back(self, amount: float) -> None:
        """What was taken and not used; below 0, what was used beyond that."""
        self._level += amount


@dataclass(slots=True)
class Leave:
    """Leave to make one request. Until it is `made` it costs nothing; then `tokens` count, which its holder corrects
    once they are known."""

    tokens: int
    made: bool = False


class CallLimiter:
    """The limits of one provider, on one event loop."""

    def __init__(
        self,
        provider: str,
        limits: CallLimits,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._provider = provider
        self._sleep = sleep
        self._monotonic = monotonic
        self._requests = _bucket(limits.requests_per_minute, monotonic)
        self._tokens = _bucket(limits.tokens_per_minute, monotonic)
        self._places = None if limits.concurrency is None else asyncio.Semaphore(limits.concurrency)

    @asynccontextmanager
    async def request(self, tokens: int, within_seconds: float) -> AsyncIterator[Leave]:
        """Waits for leave to make a request of about `tokens`, input and output together.

        Raises `ProviderError` (`rate_limited`) as soon as it is clear that this takes longer than `within_seconds`.
        """
        end = self._monotonic() + within_seconds
        await self._take_place(within_seconds)
        leave = Leave(tokens)
        try:
            wait = max(_take(self._requests, 1), _take(self._tokens, tokens))
            try:
                if wait > end - self._monotonic():
                    raise self._too_often(wait)
                if wait:
                    await self._sleep(wait)
                yield leave
            finally:
                _give_back(self._requests, 0 if leave.made else 1)
                _give_back(self._tokens, tokens - leave.tokens if leave.made else tokens)
        finally:
            if self._places is not None:
                self._places.release()

    async def _take_place(self, within_seconds: float) -> None:
        if self._places is None:
            return
        try:
            async with asyncio.timeout(within_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise self._too_often(1.0) from None

    def _too_often(self, wait: float) -> ProviderError:
        return ProviderError(
            f"The model provider {self._provider!r} is used as much as this installation allows, for {wait:.0f} s yet.",
            reason="rate_limited",
            retryable=True,
            retry_after_seconds=wait,
        )


def _bucket(per_minute: int | None, monotonic: Callable[[], float]) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, monotonic)


def _take(bucket: Bucket | None, amount: float) -> float:
    return 0.0 if bucket is None else bucket.take(amount)


def _give_back(bucket: Bucket | None, amount: float) -> None:
    if bucket is not None:
        bucket.give_back(amount)
