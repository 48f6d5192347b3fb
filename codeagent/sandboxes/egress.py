"""The one way out of a fetch: a CONNECT proxy on a unix socket that knows a single host, by checked addresses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from codeagent.addresses import Address

_LONGEST_REQUEST_BYTES = 8 << 10
_REQUEST_SECONDS = 10.0
_DIAL_SECONDS = 10.0
_IDLE_SECONDS = 60.0
_PIECE_BYTES = 64 << 10
_MOST_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Destination:
    """host:port as the client names it, and the addresses that name stood for when it was checked."""

    authority: str
    addresses: tuple[Address, ...]

    @property
    def port(self) -> int:
        return int(self.authority.rpartition(":")[2])


class Proxy:
    """Relays to `destination` only. `budget_bytes` bounds everything that comes back through it."""

    def __init__(self, destination: Destination, budget_bytes: int) -> None:
        self._destination = destination
        self._left_bytes = budget_bytes
        self._open = 0
        self.refused = 0

    @property
    def exhausted(self) -> bool:
        return self._left_bytes <= 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handles one connection of the client, from its request line to its end."""
        self._open += 1
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
            if not self._allows(request) or self._open > _MOST_CONNECTIONS:
                self.refused += 1
                writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the client sees a closed connection and reports it
        finally:
            self._open -= 1
            await _close(writer)

    def _allows(self, request: bytes) -> bool:
        line = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        wanted = self._destination.authority.lower()
        return len(line) == 3 and line[0] == "CONNECT" and line[1].lower() == wanted and line[2].startswith("HTTP/1.")

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await self._dial()
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            up = asyncio.ensure_future(_copy(reader, far_writer, None))
            down = asyncio.ensure_future(_copy(far_reader, writer, self))
            done, rest = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up in done and down in rest:
                # The client has said everything; the answer may still be on its way.
                await asyncio.wait({down}, timeout=_IDLE_SECONDS)
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            await _close(far_writer)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problem: Exception = OSError("the host has no address")
        for address in self._destination.addresses:
            try:
                async with asyncio.timeout(_DIAL_SECONDS):
                    # The checked address, never the name: the name may stand for another one by now.
                    return await asyncio.open_connection(str(address), self._destination.port)
            except (OSError, TimeoutError) as error:
                problem = error
        raise problem

    def spend(self, count: int) -> bool:
        """Takes `count` bytes from the budget; says whether it sufficed."""
        self._left_bytes -= count
        return self._left_bytes > 0


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proxy: Proxy | None) -> None:
    with suppress(OSError, TimeoutError):
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                piece = await reader.read(_PIECE_BYTES)
            if not piece or (proxy is not None and not proxy.spend(len(piece))):
                break
            writer.write(piece)
            async with asyncio.timeout(_IDLE_SECONDS):
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()


@asynccontextmanager
async def listening(socket_path: Path, proxy: Proxy, owner: int) -> AsyncIterator[None]:
    """Serves `proxy` on a unix socket only `owner` may connect to. All its connections end with the body."""
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_unix_server(accept, path=str(socket_path), limit=_LONGEST_REQUEST_BYTES)
    try:
        _hand_over(socket_path, owner)
        yield
    finally:
        server.close()
        pending: Sequence[asyncio.Task[None]] = list(connections)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await server.wait_closed()
        _remove(socket_path)


def _hand_over(socket_path: Path, owner: int) -> None:
    os.chown(socket_path, owner, owner)
    socket_path.chmod(0o600)


def _remove(socket_path: Path) -> None:
    socket_path.unlink(missing_ok=True)
