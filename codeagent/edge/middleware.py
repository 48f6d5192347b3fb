"""What every request passes through: where it comes from, whether there is room, a trace, limits of size and time,
headers that are always there, and an answer whatever fails."""

from __future__ import annotations

import asyncio
import time

import structlog
from opentelemetry.trace import Span, SpanKind
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from codeagent.clock import new_uuid
from codeagent.edge.authors import CLIENT_ADDRESS
from codeagent.edge.problems import problem
from codeagent.edge.traffic.addresses import Proxies
from codeagent.edge.traffic.control import TrafficControl
from codeagent.edge.traffic.exchange import Exchange, Headers, route_of
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.telemetry.traces import span

log = get_logger(__name__)

ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
HSTS = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
UPLOAD_PATHS = frozenset({"/v1/artifacts"})
"""Their routes bound the body themselves, since they read it piece by piece."""
HEALTH_PATHS = frozenset({"/livez", "/readyz", "/startupz", "/metrics", "/version"})
"""Never shed: who watches the process must see it when it is busiest."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other word is one name in traces and metrics: clients must not be able to make as many as they like."""


def security_headers(public_url: str) -> tuple[tuple[bytes, bytes], ...]:
    """Those of every answer. Browsers are held to TLS where clients reach the edge by it."""
    return (*ALWAYS, HSTS) if public_url.startswith("https://") else ALWAYS


class RequestMiddleware:
    """Outermost of the application: nothing that fails beneath it leaves without a problem, a trace id and headers."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        traffic: TrafficControl,
        proxies: Proxies,
        max_body_bytes: int,
        always: tuple[tuple[bytes, bytes], ...] = ALWAYS,
    ) -> None:
        self._app = app
        self._traffic = traffic
        self._proxies = proxies
        self._most = max_body_bytes
        self._always = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        self._proxies.resolve(scope, headers)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        request_id = str(new_uuid())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        always: Headers = [*self._always, (b"x-request-id", request_id.encode())]
        parent = headers.get(b"traceparent")
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        most = None if scope["path"] in UPLOAD_PATHS else self._most
        with span(method, SpanKind.SERVER, parent=None if parent is None else parent.decode("latin-1")) as current:
            exchange = Exchange(scope, receive, send, headers, most, always)
            CLIENT_ADDRESS.set(exchange.client)
            await self._serve(exchange)
            _observe(exchange, method, current)

    async def _serve(self, exchange: Exchange) -> None:
        scope, load = exchange.scope, self._traffic.load
        reason = load.refusal()
        if reason is not None and scope["path"] not in HEALTH_PATHS:
            metrics.HTTP_SHED.labels(reason).inc()
            await _answer(exchange, problem(503, "temporary_reduced_capacity", "Too much is going on. Try again soon."))
            return
        if exchange.declared_too_large():
            detail = f"The body is larger than {self._most} bytes."
            await _answer(exchange, problem(413, "payload_too_large", detail, headers={"Connection": "close"}))
            return
        self._traffic.begin(exchange)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.given_up():
                raise
            await _answer(exchange, _overdue(exchange.overdue))
        except ClientDisconnect:
            log.info("request.abandoned", route=route_of(scope))
        except Exception as error:
            log.error("request.crashed", error=type(error).__name__, route=route_of(scope), exc_info=error)
            await _answer(exchange, problem(500, "internal_error", "Something went wrong on our side."))
        finally:
            self._traffic.end(exchange)


async def _answer(exchange: Exchange, response: Response) -> None:
    """Unless the answer has begun: the server then cuts the connection, so that nobody takes a part for the whole."""
    if not exchange.status:
        await response(exchange.scope, exchange.receive, exchange.send)


def _overdue(phase: str) -> Response:
    if phase == "body":
        return problem(408, "request_timeout", "The body took too long to come.", headers={"Connection": "close"})
    return problem(504, "upstream_timeout", "The request took too long. It may have been carried out all the same.")


def _observe(exchange: Exchange, method: str, current: Span) -> None:
    route, status = route_of(exchange.scope), exchange.status
    if current.is_recording():
        current.update_name(f"{method} {route}")
        current.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
    if status and not exchange.stream_of:
        elapsed = time.perf_counter() - exchange.started
        metrics.HTTP_DURATION.labels(method, route, str(status)).observe(elapsed)
