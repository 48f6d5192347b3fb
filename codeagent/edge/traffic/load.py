"""How much is at work in this process, and when to turn work away: before it collapses under it."""

from __future__ import annotations

import asyncio

from codeagent.edge.traffic.policy import TrafficPolicy
from codeagent.errors import Exhausted, Unavailable
from codeagent.telemetry import metrics

TICK_SECONDS = 0.1
LATE_TICKS = 2
"""How often in a row the loop has to be late: once is a pause of the machine, not a load."""


class Load:
    """Counts of one process. A request is in flight, or holds a stream once it is open or waits for a run's end."""

    def __init__(self, policy: TrafficPolicy) -> None:
        self._policy = policy
        self.in_flight = 0
        self.streams = 0
        self._of_tenants: dict[str, int] = {}
        self._streams_of_tenants: dict[str, int] = {}
        self._late = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to measure how late the event loop is."""
        self._due = asyncio.get_running_loop().time()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        lag = now - self._due
        self._late = self._late + 1 if lag > self._policy.loop_lag_seconds else 0
        metrics.LOOP_LAG.set(lag)
        metrics.HTTP_ACTIVE.set(self.in_flight)
        self._due = now + TICK_SECONDS
        self._timer = loop.call_at(self._due, self._tick)

    def refusal(self) -> str | None:
        """Why one more request cannot be taken, or None."""
        if self.in_flight >= self._policy.in_flight:
            return "in_flight"
        return "loop_lag" if self._late >= LATE_TICKS else None

    def enter_tenant(self, tenant_id: str) -> None:
        """Raises `Exhausted` while the tenant has too many requests in flight."""
        count = self._of_tenants.get(tenant_id, 0)
        if count >= self._policy.tenant_in_flight:
            raise _too_many("requests-at-once", self._policy.tenant_in_flight, "requests")
        self._of_tenants[tenant_id] = count + 1

    def leave_tenant(self, tenant_id: str) -> None:
        _less(self._of_tenants, tenant_id)

    def of_tenant(self, tenant_id: str) -> int:
        """Requests of a tenant that are in flight."""
        return self._of_tenants.get(tenant_id, 0)

    def streams_of(self, tenant_id: str) -> int:
        """Open streams and waiting requests of a tenant."""
        return self._streams_of_tenants.get(tenant_id, 0)

    def open_stream(self, tenant_id: str) -> None:
        """Raises `Exhausted` or `Unavailable` while the tenant, or everybody together, has too many."""
        count = self._streams_of_tenants.get(tenant_id, 0)
        if count >= self._policy.tenant_streams:
            raise _too_many("streams", self._policy.tenant_streams, "streams")
        if self.streams >= self._policy.streams:
            metrics.HTTP_SHED.labels("streams").inc()
            raise Unavailable("Too many streams are open.", code="temporary_reduced_capacity")
        self.streams += 1
        self._streams_of_tenants[tenant_id] = count + 1

    def close_stream(self, tenant_id: str) -> None:
        self.streams -= 1
        _less(self._streams_of_tenants, tenant_id)


def _less(counts: dict[str, int], tenant_id: str) -> None:
    left = counts[tenant_id] - 1
    if left:
        counts[tenant_id] = left
    else:
        del counts[tenant_id]


def _too_many(policy: str, most: int, what: str) -> Exhausted:
    metrics.RATELIMIT_REJECTIONS.labels(policy).inc()
    return Exhausted(
        f"The tenant has {most} {what} open already.",
        code="concurrency_limit",
        policies=(policy,),
        headers={"RateLimit-Policy": f'"{policy}";q={most};qu="concurrent-requests"'},
    )
