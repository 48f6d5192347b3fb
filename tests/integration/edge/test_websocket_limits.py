"""WebSockets are held to the limits of their tenant, their credential and the address that they come from."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy
from tests.integration.edge.served import ServedEdge, served_edge

DAY = 86_400
GUESS = "cak_guess"


def policy(**changes: object) -> TrafficPolicy:
    """Windows of a day, so that none turns while a test runs."""
    usual = {"rates": {name: Rate(1_000, DAY) for name in RateClass}, "anonymous": Rate(1_000, DAY)}
    return TrafficPolicy(**{**usual, **changes})  # type: ignore[arg-type]  # whatever a test says


async def refused(served: ServedEdge, token: str) -> tuple[int, str]:
    async with served.socket() as socket:
        await socket.send(type="auth", token=token)
        return await socket.closed()


async def test_a_tenant_has_so_many_streams_open_and_one_that_closes_makes_room(module_database_url: str) -> None:
    async with served_edge(module_database_url, traffic=policy(tenant_streams=2)) as served:
        async with AsyncExitStack() as stack:
            for key in ("mine", "renewed"):
                await stack.enter_async_context(served.session(key))
            assert await refused(served, served.keys["mine"]) == (4429, "concurrency_limit")
            async with served.session("theirs"):
                assert served.traffic.load.streams == 3
        async with asyncio.timeout(10):
            while served.traffic.load.streams:
                await asyncio.sleep(0.01)
        async with served.session("mine"):
            assert served.traffic.load.streams == 1


async def test_one_process_has_so_many_streams_open(module_database_url: str) -> None:
    async with served_edge(module_database_url, traffic=policy(streams=1)) as served, served.session("theirs"):
        assert await refused(served, served.keys["mine"]) == (4503, "temporary_reduced_capacity")


async def test_a_credential_opens_so_many_in_a_time(module_database_url: str) -> None:
    rates = {name: Rate(2, DAY) for name in RateClass}
    async with served_edge(module_database_url, traffic=policy(rates=rates)) as served:
        for _ in range(2):
            async with served.session("mine"):
                pass
        assert await refused(served, served.keys["mine"]) == (4429, "quota_exceeded")
        async with served.session("theirs"):
            pass


async def test_guesses_of_every_kind_count_against_the_address_they_come_from(module_database_url: str) -> None:
    async with served_edge(module_database_url, traffic=policy(anonymous=Rate(4, DAY))) as served:
        assert await refused(served, GUESS) == (4401, "unauthenticated")
        assert await refused(served, "cst_guess") == (4401, "unauthenticated")
        async with served.socket() as silent:
            await silent.send(type="ping")
            assert await silent.closed() == (4401, "auth_first")
        async with served.session("mine") as socket:
            await socket.send(type="auth", token=GUESS)
            assert await socket.closed() == (4401, "unauthenticated")
        assert await refused(served, GUESS) == (4429, "quota_exceeded")
        # Who shares the address and has a credential is none the worse for it.
        async with served.session("mine"):
            pass
