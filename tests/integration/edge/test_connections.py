"""The edge's server on the wire: heads, bodies and pauses within bounds, and a problem for what is beyond them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from codeagent.edge.connections import ConnectionLimits
from codeagent.edge.traffic.control import LOOK_SECONDS
from tests.integration.edge.conftest import MAX_BODY, Api
from tests.integration.edge.test_api import body
from tests.integration.edge.wire import Answer, Connection, Served, serve

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])

LIMITS = ConnectionLimits(url_bytes=500, headers=30, header_bytes=4_000, head_seconds=0.8, idle_seconds=1.2)
PATIENT = ConnectionLimits(url_bytes=500, headers=30, header_bytes=4_000)


async def asked(served: Served, request: bytes) -> Answer:
    async with served.connection() as connection:
        await connection.send(request)
        return await connection.answer()


def get(path: str = "/livez", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: edge", *lines, "", ""]).encode()


BEYOND = [
    (get("/livez", *(f"X-{number}: 1" for number in range(40))), 431, "headers_too_large"),
    (get("/livez", *(f"X-{number}: {'y' * 300}" for number in range(20))), 431, "headers_too_large"),
    (get("/livez", f"X-One: {'y' * 20_000}"), 431, "headers_too_large"),
    (get(f"/livez?{'q' * 600}"), 414, "uri_too_long"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request"),
    (b"GET /livez HTTP/1.1\r\nHost edge\r\n\r\n", 400, "malformed_request"),
    (b"GET /livez HTTP/1.1\r\nContent-Length: a\r\n\r\n", 400, "malformed_request"),
    (b"nonsense\r\n\r\n", 400, "malformed_request"),
]


async def test_a_head_beyond_bounds_is_refused_with_a_problem(api: Api) -> None:
    async with serve(api.app, PATIENT) as served:
        for request, status, expected in BEYOND:
            async with served.connection() as connection:
                await connection.send(request)
                answer = await connection.answer()
                assert (answer.status, answer.code) == (status, expected), request[:60]
                assert answer.headers["connection"] == "close"
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["x-request-id"]
                assert "server" not in answer.headers
                assert await connection.closed()


@pytest.mark.parametrize(
    "part", ["X-One: ", "0\r\nX-Trailer: ", "5;extension="], ids=["header", "trailer", "extension"]
)
async def test_what_the_parser_keeps_to_itself_is_bounded_too(api: Api, part: str) -> None:
    head = f"POST /v1/runs HTTP/1.1\r\nHost: edge\r\nX-API-Key: {api.key}\r\n"
    if not part.startswith("X-One"):
        head += "Transfer-Encoding: chunked\r\n\r\n"
    async with serve(api.app, PATIENT) as served, served.connection() as connection:
        everything = asyncio.create_task(connection.reader.read())
        await connection.send(f"{head}{part}".encode())
        sent = 0
        async with asyncio.timeout(10):
            while not everything.done():
                with suppress(ConnectionError):
                    await connection.send(b"y" * 1_000)
                sent += 1_000
                await asyncio.sleep(0)
        assert sent < 1_000_000
        await asyncio.gather(everything, return_exceptions=True)


async def test_the_bounds_leave_room_for_what_is_usual(api: Api) -> None:
    async with serve(api.app, PATIENT) as served:
        usual = get("/livez?a=1", "Accept: */*", "User-Agent: x" + "y" * 200, *(f"X-{n}: z" for n in range(20)))
        answer = await asked(served, usual)
        assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
        assert "server" not in answer.headers
        assert answer.headers["date"]


async def test_slow_heads_and_silent_connections_are_ended(api: Api) -> None:
    async with serve(api.app, LIMITS) as served:
        async with served.connection() as silent:
            answer = await silent.answer()
            assert (answer.status, answer.code) == (408, "request_timeout")
            assert await silent.closed()
        async with served.connection() as slow:
            await slow.send(b"GET /livez HTTP/1.1\r\n")
            trickle = asyncio.create_task(_trickle(slow, b"X-A: b\r\n"))
            answer = await slow.answer()
            assert (answer.status, answer.code) == (408, "request_timeout")
            trickle.cancel()


async def test_idle_connections_are_kept_for_a_while_and_then_ended(api: Api) -> None:
    async with serve(api.app, LIMITS) as served, served.connection() as connection:
        for _ in range(3):
            await connection.send(get())
            assert (await connection.answer()).status == 200
        started = time.perf_counter()
        # Line ends between requests are allowed, and do not count as a request.
        await connection.send(b"\r\n")
        assert await connection.closed()
        assert time.perf_counter() - started > LIMITS.idle_seconds / 2


async def test_a_body_that_trickles_is_given_up(api: Api) -> None:
    api.limit(body_seconds=0.2)
    head = f"Host: edge\r\nX-API-Key: {api.key}\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    async with serve(api.app, PATIENT) as served:
        for path in ("/v1/runs", "/v1/artifacts"):
            async with served.connection() as connection:
                await connection.send(f"POST {path} HTTP/1.1\r\n{head}".encode())
                trickle = asyncio.create_task(_trickle(connection, b" "))
                answer = await connection.answer()
                trickle.cancel()
                assert (answer.status, answer.code) == (408, "request_timeout")
                assert answer.headers["connection"] == "close"
        async with served.connection() as next_one:
            await next_one.send(get("/v1/runs", f"X-API-Key: {api.key}"))
            assert (await next_one.answer()).status == 200


async def _trickle(connection: Connection, piece: bytes) -> None:
    with suppress(ConnectionError):
        while True:
            await connection.send(piece)
            await asyncio.sleep(0.05)


async def test_a_request_that_is_never_answered_is_given_up(api: Api) -> None:
    cleaned_up = asyncio.Event()

    @api.app.get("/v1/never")
    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    api.limit(request_seconds=0.2)
    async with serve(api.app, PATIENT) as served:
        answer = await asked(served, get("/v1/never"))
        assert (answer.status, answer.code) == (504, "upstream_timeout")
        assert cleaned_up.is_set()
        assert api.traffic.load.in_flight == 0


async def test_an_open_stream_outlives_the_time_of_a_request(api: Api) -> None:
    run_id = (await api.submit(await body(api))).json()["id"]
    async with serve(api.app, PATIENT) as served, served.connection() as connection:
        lines = [f"X-API-Key: {api.key}", "Accept: text/event-stream"]
        await connection.send(get(f"/v1/runs/{run_id}/events", *lines))
        await connection.reader.readuntil(b"\r\n\r\n")
        api.limit(request_seconds=0.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * LOOK_SECONDS):
                while await connection.reader.read(1_000):
                    pass


async def test_a_body_that_is_too_large_ends_the_connection(api: Api) -> None:
    async with serve(api.app, PATIENT) as served, served.connection() as connection:
        head = f"POST /v1/runs HTTP/1.1\r\nHost: edge\r\nX-API-Key: {api.key}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
        await connection.send(head.encode())
        answer = await connection.answer()
        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert answer.headers["connection"] == "close"
        assert await connection.closed()


async def test_connections_beyond_the_bound_are_refused_and_the_others_are_not(api: Api) -> None:
    async with serve(api.app, ConnectionLimits(connections=2)) as served:
        async with served.connection() as first, served.connection() as second:
            for connection in (first, second):
                await connection.send(get())
                assert (await connection.answer()).status == 200
            async with served.connection() as third:
                answer = await third.answer()
                assert (answer.status, answer.code) == (503, "temporary_reduced_capacity")
                assert int(answer.headers["retry-after"]) > 0
            await first.send(get())
            assert (await first.answer()).status == 200
        async with asyncio.timeout(5):
            while True:
                async with served.connection() as again:
                    await again.send(get())
                    if (await again.answer()).status == 200:
                        break
                await asyncio.sleep(0.02)
