"""The one who lets requests in, holds them to their limits, and knows when they are over."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from codeagent.edge.traffic.addresses import origin_of
from codeagent.edge.traffic.exchange import Exchange, route_of
from codeagent.edge.traffic.load import Load
from codeagent.edge.traffic.policy import RateClass, TrafficPolicy, class_of
from codeagent.edge.traffic.rates import RateLimits
from codeagent.identity.principal import Principal
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 0.5
FORGET_SECONDS = 30.0


class Sharing(Protocol):
    """What joins the counts of several processes."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class TrafficControl:
    """Works without being started, except that nobody then watches the clock and the event loop."""

    def __init__(self, policy: TrafficPolicy | None = None) -> None:
        self.policy = policy or TrafficPolicy()
        self.load = Load(self.policy)
        self.rates = RateLimits(self.policy)
        self.shared: Sharing | None = None
        self._exchanges: set[Exchange] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.load.start()
        if self.shared is not None:
            await self.shared.start()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        self.load.stop()
        if self.shared is not None:
            await self.shared.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def begin(self, exchange: Exchange) -> None:
        self.load.in_flight += 1
        self._exchanges.add(exchange)

    def end(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)
        if exchange.stream_of:
            self.load.close_stream(exchange.stream_of)
        else:
            self._leave(exchange)

    def _leave(self, exchange: Exchange) -> None:
        self.load.in_flight -= 1
        if exchange.tenant_id:
            self.load.leave_tenant(exchange.tenant_id)

    def admit(self, exchange: Exchange, caller: Principal) -> None:
        """Counts a request of a known caller. Raises `Exhausted`."""
        scope = exchange.scope
        kind = class_of(scope["method"], scope["path"])
        exchange.counted = True
        exchange.headers += self.rates.admit(kind, caller.credential_id, caller.tenant_id)
        if not exchange.tenant_id:
            self.load.enter_tenant(caller.tenant_id)
            exchange.tenant_id = caller.tenant_id

    def admit_anonymous(self, exchange: Exchange) -> None:
        """Counts a request that nobody answers for, by where it comes from. Raises `Exhausted`."""
        exchange.counted = True
        exchange.headers += self.rates.admit_anonymous(origin_of(exchange.scope))

    def admit_refused(self, exchange: Exchange) -> None:
        """Counts a request that failed before anybody asked who sends it. Raises `Exhausted`."""
        if not exchange.counted:
            self.admit_anonymous(exchange)

    def admit_stream(self, caller: Principal) -> None:
        """Counts a WebSocket, which is no exchange: `load.close_stream` when it ends. Raises `Exhausted` or
        `Unavailable`."""
        self.rates.admit(RateClass.READ, caller.credential_id, caller.tenant_id)
        self.load.open_stream(caller.tenant_id)

    def hold(self, exchange: Exchange, tenant_id: str) -> None:
        """From now on this request is a stream: open for long, idle mostly. Raises `Exhausted` or `Unavailable`."""
        if not exchange.stream_of:
            self.load.open_stream(tenant_id)
            self._leave(exchange)
            exchange.stream_of = tenant_id

    async def _watch(self) -> None:
        forget_at = time.perf_counter() + FORGET_SECONDS
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.perf_counter()
            for exchange in list(self._exchanges):
                phase = exchange.late(now, self.policy)
                if phase and not exchange.overdue:
                    metrics.HTTP_OVERDUE.labels(phase).inc()
                    log.warning("request.overdue", phase=phase, route=route_of(exchange.scope))
                    exchange.give_up(phase)
            if now > forget_at:
                self.rates.forget()
                forget_at = now + FORGET_SECONDS
