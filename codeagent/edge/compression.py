"""Smaller answers for those who ask: zstd, br or gzip, where that is safe and worth it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette_compress import CompressMiddleware

MINIMUM_BYTES = 1_024
_PLAIN_SEND = "codeagent.plain_send"


class Compression:
    """Leaves alone what must not, or need not, be compressed:

    - event streams, where it would hold events back or cost a context for each;
    - what is not to be stored: such answers hold secrets, and the size of a compressed answer that also repeats
      something of the request tells them bit by bit (BREACH);
    - what a strong ETag names: those are names of exact bytes (RFC 9110, section 8.8.3.3), and `If-Match` needs them;
    - what is small, already compressed, or not text.

    Clients that ask for nothing pay one look at their headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compress = CompressMiddleware(self._choose, minimum_size=MINIMUM_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not any(name == b"accept-encoding" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        scope[_PLAIN_SEND] = send
        await self._compress(scope, receive, send)

    async def _choose(self, scope: Scope, receive: Receive, compressing: Send) -> None:
        plain: Send = scope.pop(_PLAIN_SEND)
        chosen = compressing

        async def send(message: Message) -> None:
            nonlocal chosen
            if message["type"] == "http.response.start" and not _may_be_compressed(message):
                chosen = plain
            await chosen(message)

        await self._app(scope, receive, send)


def _may_be_compressed(start: Message) -> bool:
    for name, value in start.get("headers", ()):
        if name == b"content-type" and value.startswith(b"text/event-stream"):
            return False
        if name == b"cache-control" and b"no-store" in value:
            return False
        if name == b"etag" and not value.startswith(b"W/"):
            return False
    return True
