"""Calls share their provider's connections, and are no more at once than its limits let through."""

from __future__ import annotations

import asyncio
from types import ModuleType

import pytest
from starlette.requests import Request
from starlette.responses import Response

from codeagent.providers.breaker import Breaker
from codeagent.providers.limits import CallLimiter, CallLimits
from codeagent.providers.retry import ResilientProvider
from codeagent.providers.vendor import Timeouts
from tests.servers.model_server import ModelServer
from tests.servers.providers import ask, ignore, over_http
from tests.servers.script import Reply, Script


class CountingServer(ModelServer):
    """Knows from which ports it was called, and how many calls it had at most at once."""

    def __init__(self) -> None:
        super().__init__(Script([Reply(text="Hello.", delay_seconds=0.02)]))
        self.ports: list[int] = []
        self.at_once = self.most_at_once = 0

    async def _answer(self, request: Request, vendor: ModuleType) -> Response:
        assert request.client is not None
        self.ports.append(request.client.port)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await super()._answer(request, vendor)
        finally:
            self.at_once -= 1


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_many_calls_need_as_many_connections_as_may_be_at_work_at_once(kind: str) -> None:
    with CountingServer() as server:
        provider = over_http(kind, server, timeouts=Timeouts())
        limiter = CallLimiter(provider.name, CallLimits(concurrency=3))
        guarded = ResilientProvider(provider, Breaker(provider.name), limiter=limiter)
        await asyncio.gather(*(guarded.generate(ask(), ignore) for _ in range(18)))
        await guarded.close()
    assert len(server.ports) == 18
    assert server.most_at_once <= 3
    assert len(set(server.ports)) <= 3
