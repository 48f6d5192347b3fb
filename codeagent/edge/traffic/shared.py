"""Rates counted together by all edges of one Valkey (or Redis), without a request ever waiting for it.

Every process counts by itself and tells its new hits a few times a second; the answer is what all have counted. A
client may so get beyond its rate by what it sends within that time. While Valkey is away each process goes on with
what it knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, cast

from limits.aio.storage import RedisStorage
from redis.exceptions import RedisError

from codeagent.edge.traffic.rates import Counter, RateLimits
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

EVERY_SECONDS = 0.1
AWAY_SECONDS = 1.0
ANSWER_SECONDS = 1.0
MOST_AT_ONCE = 10
REST = 5
"""A round that took long, since many clients are busy, is followed by a pause this many times as long."""


def redis_url(url: str) -> str:
    """The address as the client library knows it: Valkey speaks Redis' protocol."""
    for ours, theirs in (("valkeys://", "rediss://"), ("valkey://", "redis://")):
        if url.startswith(ours):
            return theirs + url.removeprefix(ours)
    return url


class SharedCounts:
    """Joins this process's counters with those of the others. `together` says whether the last round succeeded."""

    def __init__(self, url: str, rates: RateLimits) -> None:
        self._rates = rates
        self._rates.unshared = set()
        self._storage = RedisStorage(
            f"async+{redis_url(url)}",
            implementation="redispy",
            key_prefix="codeagent",
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
        )
        self.together: bool | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await cast(Any, self._storage.bridge).get_connection().aclose()

    async def _run(self) -> None:
        while True:
            started = time.monotonic()
            try:
                together = await self.share()
            except Exception:
                log.exception("rates.sharing_failed")
                together = False
            taken = time.monotonic() - started
            await asyncio.sleep(max(EVERY_SECONDS, REST * taken) if together else AWAY_SECONDS)

    async def share(self) -> bool:
        """One round: tells what is new, takes over what all have counted. Whether Valkey answered.

        Not to be called while another round is under way: hits would be told twice.
        """
        waiting = self._rates.unshared or set()
        if not waiting and self.together:
            return True
        self._rates.unshared = set()
        try:
            if not waiting:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._storage.get("rates")  # `check` would hide why
            for some in _batches(waiting, MOST_AT_ONCE):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await asyncio.gather(*(self._exchange(counter) for counter in some))
        except (RedisError, OSError, TimeoutError, ValueError) as error:  # the last one for what is no number
            self._rates.unshared |= {counter for counter in waiting if counter.unsent}
            self._tell(together=False, why=type(error).__name__)
            return False
        self._tell(together=True)
        return True

    async def _exchange(self, counter: Counter) -> None:
        place, new = counter.place, counter.unsent
        if not counter.seeded:
            before = await self._storage.get(f"{counter.id}:{place - 1}")
            if counter.place == place:
                counter.previous, counter.seeded = max(counter.previous, before), True
        total = await self._storage.incr(f"{counter.id}:{place}", 2 * counter.seconds, new)
        if counter.place == place:
            counter.unsent -= new
            counter.current = total + counter.unsent

    def _tell(self, *, together: bool, why: str = "") -> None:
        metrics.RATELIMIT_SHARED.set(together)
        if together is self.together:
            return
        if together:
            log.info("rates.shared")
        else:
            log.warning("rates.local", error=why)
        self.together = together


def _batches(counters: Iterable[Counter], most: int) -> Iterable[list[Counter]]:
    rest = iter(counters)
    while some := list(islice(rest, most)):
        yield some
