"""One request and its answer: what has come, what has gone, and what it holds until it is over."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from codeagent.edge.traffic.policy import TrafficPolicy

BODY_BYTES_A_SECOND = 16 << 10
"""A body may take a second longer for every so many of its bytes: slow lines are welcome, trickles are not."""
_KEY = "codeagent.exchange"

Headers = list[tuple[bytes, bytes]]


class Exchange:
    """`asked` are the request's headers, `headers` are added to the answer, whoever makes it. `most` bounds the body,
    None where the route does."""

    __slots__ = (
        "_always",
        "_most",
        "_receive",
        "_send",
        "_task",
        "asked",
        "complete",
        "counted",
        "headers",
        "overdue",
        "progress",
        "reading",
        "received",
        "scope",
        "started",
        "status",
        "stream_of",
        "tenant_id",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        asked: dict[bytes, bytes],
        most: int | None,
        always: Headers,
    ) -> None:
        self.scope = scope
        self.asked = asked
        self._receive = receive
        self._send = send
        self._most = most
        self._always = always
        self._task = asyncio.current_task()
        self.headers: Headers = []
        self.counted = False
        """Whether somebody's rate has paid for it."""
        self.started = self.progress = time.perf_counter()
        self.received = 0
        self.reading = False
        self.complete = False
        """Whether the whole body has come."""
        self.status = 0
        self.tenant_id = ""
        self.stream_of = ""
        """The tenant whose stream this is, once it is one."""
        self.overdue = ""
        """What took too long: `body` or `answer`."""
        scope[_KEY] = self

    def header(self, name: bytes) -> str | None:
        """Of the request, by its name in lower case. The framework's way to it takes ten times as long."""
        value = self.asked.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def client(self) -> str | None:
        """The address that the request comes from, as far as it is known."""
        client = self.scope.get("client")
        return client[0] if client else None

    def declared_too_large(self) -> bool:
        length = self.asked.get(b"content-length")
        return length is not None and self._most is not None and (not length.isdigit() or int(length) > self._most)

    async def receive(self) -> Message:
        self.reading = True
        message = await self._receive()
        self.reading = False
        self.received += len(message.get("body", b""))
        self.progress = time.perf_counter()
        if not message.get("more_body", False):
            self.complete = True
        if self._most is not None and self.received > self._most:
            # Of this kind, since the framework turns any other error of a read into a 400.
            raise HTTPException(413, f"The body is larger than {self._most} bytes.", {"Connection": "close"})
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message.get("more_body", False):
            self.progress = time.perf_counter()
        await self._send(message)

    def _begin(self, message: Message) -> None:
        self.status = message["status"]
        headers: Headers = list(message.get("headers", ()))
        if not any(name == b"cache-control" for name, _ in headers):
            headers.append((b"cache-control", b"no-store"))
        message["headers"] = headers + self._always + self.headers

    def late(self, now: float, policy: TrafficPolicy) -> str:
        """What of this exchange takes longer than it may, or nothing. Streams end by themselves."""
        if self.stream_of:
            return ""
        if self.reading and not self.complete and not self.status:
            allowed = policy.body_seconds + self.received / BODY_BYTES_A_SECOND
            return "body" if now - self.started > allowed else ""
        return "answer" if now - self.progress > policy.request_seconds else ""

    def give_up(self, phase: str) -> None:
        """Cancels the work on it, once."""
        if not self.overdue and self._task is not None:
            self.overdue = phase
            self._task.cancel()

    def given_up(self) -> bool:
        """Whether a cancellation that has arrived was ours; it is then over."""
        if self.overdue and self._task is not None:
            self._task.uncancel()
        return bool(self.overdue)


def exchange_of(request: Request) -> Exchange:
    """The exchange that a request belongs to."""
    return cast(Exchange, request.scope[_KEY])


def route_of(scope: Scope) -> str:
    """The route's pattern, as metrics and logs name it: without ids."""
    return str(getattr(scope.get("route"), "path", "unmatched"))
