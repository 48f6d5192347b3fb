"""Too much at once: the rest is turned away at once and told when to come back, and what was taken is not slowed down."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import orjson
import pytest

from codeagent.edge.context import RunReader
from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code
from tests.integration.edge.wire import serve

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])

AT_ONCE = 8
OF_A_TENANT = 3
STREAMS = 4
STREAMS_OF_A_TENANT = 2


@pytest.fixture
def traffic_policy(request: pytest.FixtureRequest) -> TrafficPolicy:
    return TrafficPolicy(
        rates={name: Rate(100_000, 60) for name in RateClass},
        in_flight=AT_ONCE,
        tenant_in_flight=100 if "burst" in request.node.name else OF_A_TENANT,
        streams=STREAMS,
        tenant_streams=STREAMS_OF_A_TENANT,
        loop_lag_seconds=0.05 if "pause" in request.node.name or "late" in request.node.name else 5.0,
    )


class Slow:
    """A route that answers when it is told to."""

    def __init__(self, api: Api) -> None:
        self.go = asyncio.Event()
        self.inside = 0

        @api.app.get("/v1/slow")
        async def slow(caller: RunReader) -> None:
            self.inside += 1
            await self.go.wait()
            self.inside -= 1

    async def reached(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.inside < number:
                await asyncio.sleep(0.01)


async def test_a_tenant_has_so_many_requests_in_flight_and_no_more(api: Api) -> None:
    slow = Slow(api)
    waiting = [asyncio.create_task(api.http.get("/v1/slow")) for _ in range(OF_A_TENANT)]
    await slow.reached(OF_A_TENANT)
    refused = await api.http.get("/v1/runs")
    assert (refused.status_code, code(refused)) == (429, "concurrency_limit")
    assert refused.json()["violated-policies"] == ["requests-at-once"]
    assert int(refused.headers["retry-after"]) > 0
    assert (await api.stranger.get("/v1/runs")).status_code == 200
    slow.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert (await api.http.get("/v1/runs")).status_code == 200
    assert api.traffic.load.in_flight == 0


async def test_a_process_sheds_what_is_too_much_and_stays_visible(api: Api) -> None:
    slow = Slow(api)
    tasks = [
        asyncio.create_task(client.get("/v1/slow")) for client in (api.http, api.stranger) for _ in range(OF_A_TENANT)
    ]
    anonymous = asyncio.Event()

    @api.app.get("/v1/slow-for-all")
    async def slow_for_all() -> None:
        await anonymous.wait()

    tasks += [asyncio.create_task(api.http.get("/v1/slow-for-all")) for _ in range(AT_ONCE - 2 * OF_A_TENANT)]
    async with asyncio.timeout(10):
        while api.traffic.load.in_flight < AT_ONCE:
            await asyncio.sleep(0.01)
    refused = await api.stranger.get("/v1/runs")
    assert (refused.status_code, code(refused)) == (503, "temporary_reduced_capacity")
    assert refused.json()["type"] == "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
    assert int(refused.headers["retry-after"]) > 0
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await api.http.get(path)).status_code == 200
    slow.go.set()
    anonymous.set()
    await asyncio.gather(*tasks)
    assert (await api.stranger.get("/v1/runs")).status_code == 200


async def test_a_late_event_loop_sheds_until_it_is_on_time(api: Api) -> None:
    async with asyncio.timeout(20):
        while api.traffic.load.refusal() is None:
            time.sleep(0.3)  # noqa: ASYNC251  the very thing
            await asyncio.sleep(0)
    refused = await api.http.get("/v1/runs")
    assert (refused.status_code, code(refused)) == (503, "temporary_reduced_capacity")
    assert (await api.http.get("/livez")).status_code == 200
    async with asyncio.timeout(20):
        while (await api.http.get("/v1/runs")).status_code == 503:
            await asyncio.sleep(0.05)


async def test_one_pause_of_the_machine_sheds_nothing(api: Api) -> None:
    load = api.traffic.load
    async with asyncio.timeout(10):
        while load._late:
            await asyncio.sleep(0.05)
    time.sleep(0.3)  # noqa: ASYNC251  the very thing
    await asyncio.sleep(0)
    assert load.refusal() is None


async def test_a_tenant_has_so_many_streams_and_they_are_no_requests_in_flight(api: Api) -> None:
    run_id = (await api.submit(await body(api))).json()["id"]
    head = (
        f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: edge\r\nX-API-Key: {api.key}\r\nAccept: text/event-stream\r\n"
    )
    async with serve(api.app) as served, AsyncExitStack() as stack:
        for _ in range(STREAMS_OF_A_TENANT):
            connection = await stack.enter_async_context(served.connection())
            await connection.send(f"{head}\r\n".encode())
            assert (await connection.reader.readline()).startswith(b"HTTP/1.1 200")
        async with served.connection() as one_more:
            await one_more.send(f"{head}\r\n".encode())
            answer = await one_more.answer()
            assert (answer.status, answer.code) == (429, "concurrency_limit")
        assert (api.traffic.load.streams, api.traffic.load.in_flight) == (STREAMS_OF_A_TENANT, 0)
        assert (await api.http.get("/v1/runs")).status_code == 200
        await stack.aclose()
        async with asyncio.timeout(10):
            while api.traffic.load.streams:
                await asyncio.sleep(0.01)


async def test_a_burst_is_taken_in_part_and_the_rest_refused_at_once(api: Api) -> None:
    data = orjson.dumps(await body(api))
    head = (
        f"POST /v1/runs HTTP/1.1\r\nHost: edge\r\nX-API-Key: {api.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n"
    )
    async with serve(api.app) as served:

        async def order(number: int) -> tuple[int, float]:
            async with served.connection() as connection:
                started = time.perf_counter()
                await connection.send(f"{head}Idempotency-Key: k{number}\r\n\r\n".encode() + data)
                answer = await connection.answer()
                assert answer.status == 202 or answer.code == "temporary_reduced_capacity"
                assert "retry-after" in answer.headers
                return answer.status, time.perf_counter() - started

        async with asyncio.timeout(30):
            alone = min([await order(number) for number in range(-5, 0)])[1]
            outcomes = await asyncio.gather(*(order(number) for number in range(25 * AT_ONCE)))
        statuses = Counter(status for status, _ in outcomes)
        assert set(statuses) == {202, 503}
        assert statuses[202] >= AT_ONCE
        slowest = max(seconds for status, seconds in outcomes if status == 202)
        assert slowest < 5 + 10 * AT_ONCE * alone
        # Nothing is left over: the next one finds an idle edge.
        assert api.traffic.load.in_flight == 0
        assert (await order(10_000))[0] == 202
