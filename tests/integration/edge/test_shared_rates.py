"""Several edges and one Valkey: together they let through what one alone would, and without it each goes on alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy
from codeagent.edge.traffic.rates import RateLimits
from codeagent.edge.traffic.shared import SharedCounts, redis_url
from codeagent.errors import Exhausted
from codeagent.telemetry.metrics import REGISTRY
from tests.services.valkey import ValkeyServer

DAY = 86_400
QUOTA = 20


class Edge:
    """What one process counts, joined with the others."""

    def __init__(self, url: str, quota: int = QUOTA) -> None:
        rates = {name: Rate(quota, DAY) for name in RateClass}
        self.rates = RateLimits(TrafficPolicy(rates=rates, tenant_factor=1_000))
        self.shared = SharedCounts(url, self.rates)

    def ask(self, key: str = "key_1") -> bool:
        """Whether a request of that key is let through."""
        try:
            self.rates.admit(RateClass.SUBMIT, key, "ten_1")
        except Exhausted:
            return False
        return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def edges(valkey: ValkeyServer) -> AsyncIterator[list[Edge]]:
    """They share when the test says so."""
    made = [Edge(valkey.url) for _ in range(3)]
    yield made
    for edge in made:
        await edge.shared.stop()


async def test_edges_count_together(edges: list[Edge]) -> None:
    let_through = 0
    for _ in range(QUOTA):
        for edge in edges:
            let_through += edge.ask()
        for edge in edges:
            assert await edge.shared.share()
    # What was not told yet when the last one was used may be too much: here one request a process.
    assert QUOTA <= let_through <= QUOTA + len(edges)
    assert not any(edge.ask() for edge in edges)
    assert all(edge.ask("key_2") for edge in edges)


async def test_an_edge_that_starts_anew_learns_what_was_used(edges: list[Edge], valkey: ValkeyServer) -> None:
    for _ in range(QUOTA - 2):
        assert edges[0].ask()
    await edges[0].shared.share()
    fresh = Edge(valkey.url)
    assert fresh.ask()
    await fresh.shared.share()
    assert [fresh.ask(), fresh.ask()] == [True, False]
    await fresh.shared.stop()


async def test_what_the_last_window_used_is_learned_too(valkey: ValkeyServer) -> None:
    old, new = Edge(valkey.url), Edge(valkey.url)
    now = 1_800_000_000.0
    old.rates.now = new.rates.now = lambda: now
    for _ in range(QUOTA):
        old.ask()
    assert await old.shared.share()
    counter = next(policy for policy in new.rates.policies() if policy.name == "submit").counter("ten_1/key_1")
    # To the beginning of the next window: almost all of the last one still counts.
    now += DAY - (now + counter.phase) % DAY + 1
    assert new.ask()
    assert await new.shared.share()
    assert not new.ask()
    await old.shared.stop()
    await new.shared.stop()


async def test_without_valkey_each_edge_limits_by_itself_and_says_so(valkey: ValkeyServer) -> None:
    edge = Edge(valkey.url)
    await edge.shared.start()
    await until(lambda: edge.shared.together is True)
    assert REGISTRY.get_sample_value("codeagent_ratelimit_shared") == 1
    valkey.kill()
    assert [edge.ask() for _ in range(QUOTA + 5)] == [True] * QUOTA + [False] * 5
    await until(lambda: edge.shared.together is False)
    assert REGISTRY.get_sample_value("codeagent_ratelimit_shared") == 0
    assert not edge.ask()
    valkey.start()
    await until(lambda: edge.shared.together is True)
    # What it let through meanwhile is told now, so that a second edge does not give it once more.
    other = Edge(valkey.url)
    await other.shared.start()
    assert other.ask()
    await until(lambda: not other.ask())
    await edge.shared.stop()
    await other.shared.stop()


async def test_a_valkey_that_hangs_holds_up_no_request(valkey: ValkeyServer) -> None:
    edge = Edge(valkey.url, quota=1_000)
    await edge.shared.start()
    await until(lambda: edge.shared.together is True)
    valkey.pause()
    try:
        started = time.process_time()
        assert all(edge.ask() for _ in range(500))
        assert time.process_time() - started < 1.0
        await until(lambda: edge.shared.together is False)
    finally:
        valkey.resume()
    await until(lambda: edge.shared.together is True)
    await edge.shared.stop()


async def test_a_valkey_that_was_never_there_is_no_reason_not_to_start() -> None:
    edge = Edge("valkey://127.0.0.1:1/0")
    await edge.shared.start()
    await until(lambda: edge.shared.together is False)
    assert edge.ask()
    await edge.shared.stop()


def test_addresses_are_taken_as_valkey_and_redis_write_them() -> None:
    assert redis_url("valkey://host:6379/1") == "redis://host:6379/1"
    assert redis_url("valkeys://host") == "rediss://host"
    assert redis_url("rediss://host") == "rediss://host"
