"""Whatever fails, the answer is a problem with a trace id, the usual headers, and nothing of what is inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from codeagent.edge.context import RunReader
from codeagent.edge.middleware import RequestMiddleware
from codeagent.edge.traffic.addresses import Proxies
from codeagent.edge.traffic.control import TrafficControl
from codeagent.errors import CodeAgentError, OutcomeUnknown, Unavailable
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code
from tests.integration.edge.wire import serve

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])

SECRET = "postgresql://codeagent:hunter2@10.1.2.3/prod"


def proper(response: object) -> None:
    headers, problem = response.headers, response.json()  # type: ignore[attr-defined]
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]
    assert headers["cache-control"] == "no-store"
    assert {"type", "title", "status", "detail", "code", "retryable", "trace_id"} <= set(problem)
    assert len(problem["trace_id"]) == 32
    assert problem["status"] == response.status_code  # type: ignore[attr-defined]
    assert "hunter2" not in response.text  # type: ignore[attr-defined]
    assert "Error" not in problem["detail"]


RAISED = [
    (ValueError(SECRET), 500, "internal_error"),
    (ExceptionGroup(SECRET, [KeyError("a")]), 500, "internal_error"),
    (RecursionError(SECRET), 500, "internal_error"),
    (TimeoutError(SECRET), 500, "internal_error"),
    (CodeAgentError(SECRET), 500, "internal_error"),
    (Unavailable(SECRET, code="database_unavailable"), 503, "database_unavailable"),
    (Unavailable(f"ConnectionRefusedError {SECRET}"), 503, "unavailable"),
    (OutcomeUnknown(SECRET), 503, "outcome_unknown"),
]


async def test_an_error_in_a_route_tells_nothing_of_the_inside(api: Api) -> None:
    @api.app.get("/v1/test/fails/{number}")
    async def fails(number: int, caller: RunReader) -> None:
        raise RAISED[number][0]

    for number, (raised, status, expected) in enumerate(RAISED):
        response = await api.http.get(f"/v1/test/fails/{number}")
        assert (response.status_code, code(response)) == (status, expected), repr(raised)
        proper(response)
        if status == 503:
            assert int(response.headers["retry-after"]) > 0


async def test_an_error_in_a_dependency_or_in_a_middleware_is_told_the_same_way(api: Api) -> None:
    async def authenticate(_: str) -> None:
        raise ValueError(SECRET)

    object.__setattr__(api.context, "authenticate", authenticate)
    response = await api.http.get("/v1/runs")
    assert (response.status_code, code(response)) == (500, "internal_error")
    proper(response)


class Broken:
    """A middleware that fails before, in the middle of, or after an answer."""

    def __init__(self, when: str) -> None:
        self._when = when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._when == "before":
            raise RuntimeError(SECRET)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        if self._when == "middle":
            raise RuntimeError(SECRET)
        await send({"type": "http.response.body", "body": b"67890"})
        raise RuntimeError(SECRET)


def beneath(app: Broken) -> RequestMiddleware:
    return RequestMiddleware(app, traffic=TrafficControl(), proxies=Proxies(), max_body_bytes=1_000)


async def test_an_error_beneath_the_outermost_layer_is_answered_on_the_wire(api: Api) -> None:
    async with serve(beneath(Broken("before"))) as served, served.connection() as connection:
        for _ in range(2):
            await connection.send(b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n")
            answer = await connection.answer()
            assert (answer.status, answer.code) == (500, "internal_error")
            assert b"hunter2" not in answer.body
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_error_in_the_middle_of_an_answer_cuts_the_connection(api: Api) -> None:
    """Rather than leave it open, or pass a part off as the whole."""
    async with serve(beneath(Broken("middle"))) as served, served.connection() as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n")
        with pytest.raises(asyncio.IncompleteReadError):
            await connection.answer()


async def test_an_error_after_an_answer_changes_nothing(api: Api) -> None:
    async with serve(beneath(Broken("after"))) as served, served.connection() as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n")
        assert (await connection.answer()).body == b"1234567890"


async def test_a_stream_of_bytes_that_fails_cuts_the_connection(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a piece"
        raise OSError(SECRET)

    @api.app.get("/v1/test/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())

    async with serve(api.app) as served, served.connection() as connection:
        await connection.send(b"GET /v1/test/stream HTTP/1.1\r\nHost: edge\r\n\r\n")
        everything = await asyncio.wait_for(connection.reader.read(), 10)
        assert b"a piece" in everything
        assert not everything.endswith(b"0\r\n\r\n")
        assert b"hunter2" not in everything


ASKED_WRONGLY: list[tuple[str, str, dict[str, str], bytes, int, str]] = [
    ("GET", "/nowhere", {}, b"", 404, "not_found"),
    ("GET", "/v1/runs/", {}, b"", 404, "not_found"),
    ("GET", "/v1/%00", {}, b"", 404, "not_found"),
    ("DELETE", "/v1/runs", {}, b"", 405, "method_not_allowed"),
    ("FROBNICATE", "/v1/runs", {}, b"", 405, "method_not_allowed"),
    ("GET", "/v1/runs", {"Accept": "text/html"}, b"", 406, "not_acceptable"),
    ("POST", "/v1/runs", {"Content-Type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
    ("POST", "/v1/runs", {"Content-Type": "application/xml"}, b"<a/>", 415, "unsupported_media_type"),
    ("POST", "/v1/runs", {}, b"{}", 415, "unsupported_media_type"),
    ("POST", "/v1/runs", {"Content-Type": "application/json"}, b"", 400, "malformed_request"),
    ("POST", "/v1/runs", {"Content-Type": "application/json"}, b"{", 400, "malformed_request"),
    ("POST", "/v1/runs", {"Content-Type": "application/json"}, b'"\xff"', 400, "malformed_request"),
    ("POST", "/v1/runs", {"Content-Type": "application/json"}, b"[" * 50_000, 400, "malformed_request"),
    ("POST", "/v1/runs", {"Content-Type": "application/json"}, b"{}", 422, "validation_failed"),
    ("GET", "/v1/runs?limit=many", {}, b"", 422, "validation_failed"),
]


async def test_what_is_asked_wrongly_is_a_problem(api: Api) -> None:
    for method, path, extra, content, status, expected in ASKED_WRONGLY:
        headers = {"Idempotency-Key": "k", **extra}
        response = await api.http.request(method, path, headers=headers, content=content)
        assert (response.status_code, code(response)) == (status, expected), (method, path, extra, content[:20])
        proper(response)
        if status == 405:
            assert response.headers["allow"] == "GET, POST"


async def test_a_trace_that_a_client_began_is_named_in_its_problems(api: Api) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    for traceparent, kept in ((f"00-{trace_id}-00f067aa0ba902b7-01", True), ("nonsense", False), ("\xff", False)):
        response = await api.http.get("/nowhere", headers={"traceparent": traceparent.encode("latin-1")})
        assert (response.json()["trace_id"] == trace_id) is kept


async def test_a_conflict_in_the_database_names_no_constraint(api: Api) -> None:
    @api.app.get("/v1/test/conflict")
    async def conflicts(caller: RunReader) -> None:
        for _ in range(2):
            await api.database.write("INSERT INTO projections VALUES ('one', '1', 1)")

    response = await api.http.get("/v1/test/conflict")
    assert (response.status_code, code(response)) == (409, "conflict")
    assert "pkey" not in response.text
    proper(response)


async def test_methods_that_clients_make_up_do_not_grow_the_metrics(api: Api) -> None:
    for number in range(5):
        await api.http.request(f"MADEUP{number}", "/v1/runs")
    text = (await api.http.get("/metrics")).text
    assert "MADEUP" not in text
    assert 'http_request_method="_OTHER"' in text


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(api: Api) -> None:
    order = await body(api)
    async with serve(api.app) as served:
        async with served.connection() as connection:
            head = f"POST /v1/runs HTTP/1.1\r\nHost: edge\r\nX-API-Key: {api.key}\r\nContent-Length: 500\r\n\r\n"
            await connection.send(head.encode() + b"{")
            async with asyncio.timeout(10):
                while not api.traffic.load.in_flight:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while api.traffic.load.in_flight:
                await asyncio.sleep(0.01)
    assert (await api.submit(order)).status_code == 202
