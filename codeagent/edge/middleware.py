"""What every request passes through: a bound on its body, a trace, a duration, and headers that are always there."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog
from opentelemetry.trace import Span, SpanKind
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codeagent.clock import new_uuid
from codeagent.edge.problems import problem
from codeagent.telemetry import metrics
from codeagent.telemetry.traces import span

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
UPLOAD_PATHS = frozenset({"/v1/artifacts"})


class RequestMiddleware:
    """Outermost of the application. Uploads bound themselves, since they are read piece by piece."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._most = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        method, path = scope["method"], scope["path"]
        parent = headers.get(b"traceparent", b"").decode(errors="replace") or None
        request_id = str(new_uuid())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        with span(method, SpanKind.SERVER, parent=parent) as current:
            exchange = _Exchange(scope, receive, send, request_id, self._most)
            if path not in UPLOAD_PATHS and exchange.declared_too_large():
                await self._refuse(exchange)
                return
            limited = receive if path in UPLOAD_PATHS else exchange.receive
            try:
                await self._app(scope, limited, exchange.send)
            finally:
                exchange.observe(method, current)

    async def _refuse(self, exchange: _Exchange) -> None:
        response = problem(413, "payload_too_large", f"The body is larger than {self._most} bytes.")
        await response(exchange.scope, exchange.receive_raw, exchange.send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, most: int) -> None:
        self.scope = scope
        self.receive_raw = receive
        self._send = send
        self._request_id = request_id
        self._most = most
        self._received = 0
        self._started = time.perf_counter()
        self._status = 0
        self._streamed = False

    def declared_too_large(self) -> bool:
        for name, value in self.scope["headers"]:
            if name == b"content-length":
                return not value.isdigit() or int(value) > self._most
        return False

    async def receive(self) -> Message:
        message = await self.receive_raw()
        self._received += len(message.get("body", b""))
        if self._received > self._most:
            # Of this kind, since the framework turns any other error of a read into a 400.
            raise HTTPException(413, f"The body is larger than {self._most} bytes.")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
            self._streamed = any(name == b"content-type" and b"event-stream" in value for name, value in headers)
            message["headers"] = [*headers, *ALWAYS, (b"x-request-id", self._request_id.encode())]
        await self._send(message)

    def observe(self, method: str, current: Span) -> None:
        route = getattr(self.scope.get("route"), "path", "unmatched")
        if current.is_recording():
            current.update_name(f"{method} {route}")
            current.set_attributes(
                {"http.request.method": method, "http.route": route, "http.response.status_code": self._status}
            )
        if self._streamed or not self._status:
            return
        elapsed = time.perf_counter() - self._started
        metrics.HTTP_DURATION.labels(method, route, str(self._status)).observe(elapsed)
