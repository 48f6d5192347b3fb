"""The way to one server: to addresses that were checked, to its own origin alone, and no more bytes than are wanted."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from pathlib import Path

import httpx2

from codeagent.addresses import is_public
from codeagent.mcp.failures import McpFailure
from codeagent.mcp.servers import McpServer

Lookup = Callable[[str, int], Sequence[str]]
"""The addresses of a name, as text. Blocks, and raises `OSError` where there are none."""

LOOKUP_SECONDS = 5.0
CONNECT_SECONDS = 5.0
GOODBYE_SECONDS = 2.0


def look_up(host: str, port: int) -> Sequence[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@cache
def _tls(certificates: Path | None) -> ssl.SSLContext:
    """Raises `McpFailure` for a file that cannot be read."""
    if certificates is None:
        return httpx2.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=certificates)
    except OSError:
        detail = "The authority of the server's certificate cannot be had."
        raise McpFailure(detail, "mcp_credential_unavailable") from None


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Carries the requests of one session. `most_bytes` bounds what all answers of it have together.

    The client library turns what goes wrong here into errors of its own, or hears of it in a task that nobody waits
    for: `fault` keeps why.
    """

    def __init__(self, server: McpServer, *, lookup: Lookup, most_bytes: int) -> None:
        settings = server.settings
        url = httpx2.URL(settings.url)
        self._origin = (url.scheme, url.host, url.port)
        self._private = settings.private
        self._lookup = lookup
        self._left = most_bytes
        self._wire = httpx2.AsyncHTTPTransport(verify=_tls(settings.certificates), trust_env=False)
        self._seconds = settings.timeout_seconds
        self.fault: McpFailure | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if (request.url.scheme, request.url.host, request.url.port) != self._origin:
            raise self._note("The server leads to another one.", "mcp_protocol_error")
        response = await self._send(request, await self._addresses(request.url))
        if response.status_code in {401, 403}:
            self._note("The server does not take its token.", "mcp_unauthorized")
        if response.headers.get("content-encoding", "identity") != "identity":
            # What it was not asked for: its size would be anybody's guess.
            await response.aclose()
            raise self._note("The server's answer is compressed.", "mcp_protocol_error")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Counted(response, self._count),
            extensions=response.extensions,
        )

    async def _send(self, request: httpx2.Request, addresses: Sequence[str]) -> httpx2.Response:
        """To the first address that takes it. The server is told its own name, whatever the address."""
        for address in addresses:
            try:
                return await self._wire.handle_async_request(self._addressed(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
            except httpx2.TimeoutException:
                raise self._note("The server did not answer in time.", "mcp_timeout") from None
            except httpx2.TransportError:
                raise self._note("The connection to the server broke.", "mcp_unreachable") from None
        raise self._note("The server cannot be reached.", "mcp_unreachable")

    def _addressed(self, request: httpx2.Request, address: str) -> httpx2.Request:
        headers = httpx2.Headers(request.headers)
        headers["Accept-Encoding"] = "identity"
        seconds = GOODBYE_SECONDS if request.method == "DELETE" else self._seconds
        waits = {"connect": min(CONNECT_SECONDS, seconds), "read": seconds, "write": seconds, "pool": seconds}
        return httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=headers,
            stream=request.stream,
            extensions={**request.extensions, "timeout": waits, "sni_hostname": request.url.host},
        )

    async def _addresses(self, url: httpx2.URL) -> Sequence[str]:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.to_thread(self._lookup, url.host, port)
            addresses = [ipaddress.ip_address(text) for text in dict.fromkeys(found)]
        except (OSError, UnicodeError, ValueError, TimeoutError):
            addresses = []
        # One bad address is enough: which one is dialled must not depend on luck.
        if not addresses or not (self._private or all(map(is_public, addresses))):
            raise self._note("The server's name does not lead to a public address.", "mcp_address_refused")
        return [str(address) for address in addresses]

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._note("The server sent more than is read of an answer.", "mcp_answer_too_large")

    def _note(self, detail: str, code: str) -> httpx2.TransportError:
        """The first fault is the one that counts. Returns what the client library is told."""
        if self.fault is None:
            self.fault = McpFailure(detail, code)
        return httpx2.TransportError(detail)

    async def aclose(self) -> None:
        await self._wire.aclose()


class _Counted(httpx2.AsyncByteStream):
    """The body of an answer, as far as it may go."""

    def __init__(self, response: httpx2.Response, count: Callable[[int], None]) -> None:
        self._response = response
        self._count = count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.aiter_raw():
            self._count(len(chunk))
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()
