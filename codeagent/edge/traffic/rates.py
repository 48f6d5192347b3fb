"""Rates by sliding window, counted in this process; `shared` joins the counts of several.

A request costs a dictionary look-up and some arithmetic. The memory storage of `limits` was measured instead and left:
it starts a task at every hit that walks all keys, so that one request costs as much as there are clients.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from zlib import crc32

from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy
from codeagent.errors import Exhausted
from codeagent.telemetry import metrics

MOST_COUNTERS = 100_000
"""Clients that one policy remembers; the one that came first is forgotten first."""


class Counter:
    """What one client has used of one policy: this window, and the one before, which fades as this one passes."""

    __slots__ = ("current", "id", "phase", "place", "previous", "quota", "seconds", "seeded", "unsent")

    def __init__(self, name: str, rate: Rate, client: str) -> None:
        self.id = f"{name}:{client}"
        self.quota, self.seconds = rate.requests, rate.seconds
        # Windows of different clients begin at different moments, so that not everybody comes back at once.
        self.phase = crc32(self.id.encode()) % (rate.seconds * 1_000) / 1_000
        self.place = 0
        """The number of the window, the same in every process."""
        self.current = 0
        self.previous = 0.0
        self.unsent = 0
        """Hits that no other process knows of yet."""
        self.seeded = False
        """Whether `previous` has what the others counted."""

    def take(self, now: float) -> tuple[int, int]:
        """Uses one, if there is one. What is left, -1 if there was none, and the seconds to the window's end."""
        place, into = divmod(now + self.phase, self.seconds)
        if place != self.place:
            self._roll(int(place))
        left = self.quota - self.current - self.previous * (1 - into / self.seconds)
        if left < 1:
            return -1, math.ceil(self.seconds - into)
        self.current += 1
        self.unsent += 1
        return int(left - 1), math.ceil(self.seconds - into)

    def look(self, now: float) -> tuple[int, int]:
        """What is left, and the seconds to the window's end; uses nothing."""
        place, into = divmod(now + self.phase, self.seconds)
        if place == self.place:
            current, previous = self.current, self.previous
        else:
            current, previous = 0, self.current if place == self.place + 1 else 0
        left = self.quota - current - previous * (1 - into / self.seconds)
        return max(0, int(left)), math.ceil(self.seconds - into)

    def give_back(self) -> None:
        self.current -= 1
        self.unsent -= 1

    def _roll(self, place: int) -> None:
        self.previous = self.current if place == self.place + 1 else 0
        self.place, self.current, self.unsent, self.seeded = place, 0, 0, False

    def wait(self, now: float) -> int:
        """Seconds until there is one again, if nobody takes any meanwhile."""
        into = (now + self.phase) % self.seconds
        spare = self.quota - 1 - self.current
        if spare >= 0 and self.previous:
            faded = 1 - spare / self.previous
            return max(1, math.ceil(faded * self.seconds - into))
        faded = 1 - (self.quota - 1) / self.current if self.current else 0.0
        return max(1, math.ceil(self.seconds - into + max(faded, 0.0) * self.seconds))

    def stale(self, now: float) -> bool:
        """Whether nothing of it counts any more."""
        return (now + self.phase) // self.seconds > self.place + 1


@dataclass(slots=True, eq=False)
class RatePolicy:
    """One named limit and its counters, by client."""

    name: str
    rate: Rate
    counters: dict[str, Counter] = field(default_factory=dict)

    def counter(self, client: str) -> Counter:
        found = self.counters.get(client)
        if found is None:
            if len(self.counters) >= MOST_COUNTERS:
                del self.counters[next(iter(self.counters))]
            found = self.counters[client] = Counter(self.name, self.rate, client)
        return found

    def described(self) -> str:
        """As `RateLimit-Policy` has it (draft-ietf-httpapi-ratelimit-headers-11)."""
        return f'"{self.name}";q={self.rate.requests};w={self.rate.seconds}'


@dataclass(frozen=True, slots=True)
class RateStanding:
    """What is left of one limit; `resets_in` seconds."""

    name: str
    of_tenant: bool
    rate: Rate
    left: int
    resets_in: int


class RateLimits:
    """Every policy of the edge. `unshared` gathers counters with hits that are to be told to other processes."""

    def __init__(self, policy: TrafficPolicy, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.unshared: set[Counter] | None = None
        self._anonymous = RatePolicy("anonymous", policy.anonymous)
        self._pairs: dict[RateClass, tuple[RatePolicy, RatePolicy]] = {
            name: (
                RatePolicy(name, rate),
                RatePolicy(f"{name}-tenant", Rate(rate.requests * policy.tenant_factor, rate.seconds)),
            )
            for name, rate in policy.rates.items()
        }
        self._described = {
            name: f"{one.described()}, {all_.described()}".encode() for name, (one, all_) in self._pairs.items()
        }

    def policies(self) -> Iterator[RatePolicy]:
        yield self._anonymous
        for pair in self._pairs.values():
            yield from pair

    def admit(self, kind: RateClass, credential: str, tenant: str) -> list[tuple[bytes, bytes]]:
        """Counts a request of a credential and its tenant; the headers that tell what is left. Raises `Exhausted`."""
        now = self.now()
        mine, ours = self._pairs[kind]
        one, every = mine.counter(f"{tenant}/{credential}"), ours.counter(tenant)
        left, reset = one.take(now)
        if left < 0:
            raise self._exhausted(mine, one, now)
        left_of_all, reset_of_all = every.take(now)
        if left_of_all < 0:
            one.give_back()
            raise self._exhausted(ours, every, now)
        if self.unshared is not None:
            self.unshared |= {one, every}
        told = f'"{mine.name}";r={left};t={reset}, "{ours.name}";r={left_of_all};t={reset_of_all}'
        return [(b"ratelimit-policy", self._described[kind]), (b"ratelimit", told.encode())]

    def standings(self, credential: str, tenant: str) -> list[RateStanding]:
        """What a credential and its tenant have left of each kind of request. Uses nothing."""
        now, found = self.now(), []
        for mine, ours in self._pairs.values():
            for policy, client, of_tenant in ((mine, f"{tenant}/{credential}", False), (ours, tenant, True)):
                counter = policy.counters.get(client) or Counter(policy.name, policy.rate, client)
                found.append(RateStanding(policy.name, of_tenant, policy.rate, *counter.look(now)))
        return found

    def admit_anonymous(self, address: str) -> list[tuple[bytes, bytes]]:
        """Counts a request that nobody answers for. Raises `Exhausted`."""
        now, policy = self.now(), self._anonymous
        counter = policy.counter(address)
        left, reset = counter.take(now)
        if left < 0:
            raise self._exhausted(policy, counter, now)
        if self.unshared is not None:
            self.unshared.add(counter)
        told = f'"{policy.name}";r={left};t={reset}'
        return [(b"ratelimit-policy", policy.described().encode()), (b"ratelimit", told.encode())]

    def _exhausted(self, policy: RatePolicy, counter: Counter, now: float) -> Exhausted:
        metrics.RATELIMIT_REJECTIONS.labels(policy.name).inc()
        wait = counter.wait(now)
        headers = {"RateLimit-Policy": policy.described(), "RateLimit": f'"{policy.name}";r=0;t={wait}'}
        return Exhausted(
            f"More than {policy.rate.requests} requests in {policy.rate.seconds} s.",
            code="quota_exceeded",
            retry_after=wait,
            policies=(policy.name,),
            headers=headers,
        )

    def forget(self) -> None:
        """Drops the counters of clients that have not come for two windows."""
        now = self.now()
        for policy in self.policies():
            for client in [client for client, counter in policy.counters.items() if counter.stale(now)]:
                del policy.counters[client]
