"""Connections: bounds that hold before there is a request to look at.

The parser takes a header of any length and a client may take for ever to send one, so both are bounded here. Everything
that follows the head of a request is bounded by `traffic`, with a trace and a route.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from opentelemetry.trace import SpanKind
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from codeagent.clock import new_uuid
from codeagent.edge.middleware import ALWAYS
from codeagent.edge.problems import problem
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.telemetry.traces import span

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Of one connection, and how many there may be."""

    url_bytes: int = 8_192
    headers: int = 100
    header_bytes: int = 32_768
    """Names and values of one request's headers together."""
    head_seconds: float = 10.0
    """From the first byte of a request, or the beginning of the connection, to the end of its headers."""
    idle_seconds: float = 75.0
    """Between two requests. Longer than the usual proxy's, which is then the one to close."""
    connections: int = 10_000


class _Refused(Exception):
    """Ends the parsing of a request."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within limits. What cannot be served is answered with a problem, and the connection ends."""

    limits = ConnectionLimits()
    always = ALWAYS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._refusal = (400, "malformed_request", "This is not HTTP.")
        self._waiting_since = 0.0
        self._in_head = True
        self._count = self._size = 0
        self._unparsed = 0
        """Bytes since the parser last told of anything."""
        self._most_unparsed = self.limits.header_bytes + self.limits.url_bytes
        self._too_large = f"More than {self.limits.headers} headers, or {self.limits.header_bytes} bytes of them."
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        self._watch = self.loop.call_later(self.limits.head_seconds, self._look)
        if len(self.connections) > self.limits.connections:
            metrics.HTTP_SHED.labels("connections").inc()
            self._refuse(503, "temporary_reduced_capacity", "Too many connections are open.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._stop_watching()
        super().handle_websocket_upgrade()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        """One timer a connection that looks now and then, instead of one that every request sets and clears."""
        self._watch = self.loop.call_later(self.limits.head_seconds / 2, self._look)
        if self.cycle is not None and not self.cycle.response_complete:
            return
        waited = self.loop.time() - self._waiting_since
        if self._in_head and waited >= self.limits.head_seconds:
            metrics.HTTP_OVERDUE.labels("head").inc()
            self._refuse(408, "request_timeout", "The request took too long to come.")
        elif waited >= self.limits.idle_seconds:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._waiting_since, self._in_head = self.loop.time(), True
        self._count = self._size = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            self._stop(414, "uri_too_long", f"The URL is longer than {self.limits.url_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count += 1
        self._size += len(name) + len(value)
        if self._count > self.limits.headers or self._size > self.limits.header_bytes:
            self._stop(431, "headers_too_large", self._too_large)

    def on_headers_complete(self) -> None:
        self._in_head, self._unparsed = False, 0
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        # One header, trailer or chunk extension is kept by the parser until it is whole, and told nobody before.
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > self._most_unparsed:
            self._refuse(431, "headers_too_large", self._too_large)

    def _stop(self, status: int, code: str, detail: str) -> None:
        """From within the parser, which then reports an error: see `send_400_response`."""
        self._refusal = (status, code, detail)
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._refusal)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.response_started:
            # The body turned out not to be one. What the application makes of the rest goes nowhere.
            cycle.disconnected = True
            cycle.message_event.set()
        if cycle is None or cycle.response_complete or cycle.disconnected:
            self.transport.write(self._rendered(status, code, detail))
        # Else an answer is on its way, and nothing may be put into it.
        self.transport.close()

    def _rendered(self, status: int, code: str, detail: str) -> bytes:
        with span("refused", SpanKind.SERVER):
            log.info("connection.refused", status=status, code=code)
            answer = problem(status, code, detail, headers={"Connection": "close", "Cache-Control": "no-store"})
        headers = [*answer.raw_headers, *self.always, (b"x-request-id", str(new_uuid()).encode())]
        lines = b"".join(b"%b: %b\r\n" % pair for pair in [*self.server_state.default_headers, *headers])
        return STATUS_LINE[status] + lines + b"\r\n" + cast(bytes, answer.body)


def bounded(limits: ConnectionLimits, always: tuple[tuple[bytes, bytes], ...] = ALWAYS) -> type[asyncio.Protocol]:
    """The protocol with these limits, for uvicorn's `http`; `always` are headers of every answer."""
    return type("Protocol", (BoundedProtocol,), {"limits": limits, "always": always})
