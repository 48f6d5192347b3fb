"""The one way out of a sandbox: a CONNECT proxy on a unix socket that knows a few hosts and dials checked addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from codeagent import hosts
from codeagent.addresses import Address
from codeagent.sandboxes.protocol import Connection, SandboxFailure, Verdict

_REQUEST_SECONDS = 10.0
_DIAL_SECONDS = 10.0
_IDLE_SECONDS = 60.0
_PIECE_BYTES = 64 << 10
_MOST_CONNECTIONS = 32
"""At once."""

_MOST_RECORDED = 250
"""Connections of one command. Further ones are refused, and share one line of the record."""

_LONGEST_HOST = 253

Find = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Looks a host up, for a port, and answers with the addresses that may be dialled. Raises `SandboxFailure`."""


def always(addresses: Sequence[Address]) -> Find:
    """For a host whose addresses were checked beforehand."""

    async def find(_host: str, _port: int) -> Sequence[Address]:
        return addresses

    return find


@dataclass(slots=True)
class _Seen:
    """A connection while it lasts."""

    host: str
    port: int
    verdict: Verdict
    sent_bytes: int = 0
    received_bytes: int = 0


class Proxy:
    """Relays to `listed` hosts only: `host:port` in lower case, or `*.name:port` for all names below one.
    `budget_bytes` bounds what goes through it, both ways together."""

    def __init__(self, listed: Mapping[str, Find], budget_bytes: int) -> None:
        self._listed = listed
        self._left_bytes = budget_bytes
        self._open = 0
        self._turned_away = False
        self._seen: list[_Seen] = []

    @property
    def exhausted(self) -> bool:
        return self._left_bytes <= 0

    @property
    def connections(self) -> tuple[Connection, ...]:
        """What was asked of this proxy, in order, and what came of it."""
        return tuple(
            Connection(seen.host, seen.port, seen.verdict, seen.sent_bytes, seen.received_bytes) for seen in self._seen
        )

    @property
    def refused(self) -> int:
        return sum(seen.verdict.denied for seen in self._seen)

    def turn_away(self) -> None:
        """Records that connections were closed before anything was read of them: one line stands for them all."""
        if not self._turned_away and len(self._seen) <= _MOST_RECORDED:
            self._seen.append(_Seen("", 0, Verdict.TOO_MANY))
        self._turned_away = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handles one connection of the client, from its request line to its end."""
        self._open += 1
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
            seen = self._admit(request)
            addresses = await self._found(seen)
            far = await _dial(addresses, seen) if addresses else None
            if far is None:
                status = b"403 Forbidden" if seen.verdict.denied else b"502 Bad Gateway"
                writer.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            await self._relay(seen, (reader, writer), far)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the client sees a closed connection and reports it
        finally:
            self._open -= 1
            await _close(writer)

    def _admit(self, request: bytes) -> _Seen:
        """The connection that is asked for, recorded with what is known of it before anything is looked up."""
        if len(self._seen) >= _MOST_RECORDED:
            if len(self._seen) == _MOST_RECORDED:
                self._seen.append(_Seen("", 0, Verdict.TOO_MANY))
            return self._seen[-1]
        method, authority = _requested(request)
        host, _, port = authority.rpartition(":")
        if method != "CONNECT":
            seen = _Seen("", 0, Verdict.NOT_CONNECT)
        else:
            known = self._find(host, _number(port)) is not None
            seen = _Seen(_shown(host), _number(port), Verdict.ALLOWED if known else Verdict.HOST_REFUSED)
        if seen.verdict is Verdict.ALLOWED and (self.exhausted or self._open > _MOST_CONNECTIONS):
            seen.verdict = Verdict.BYTES_USED_UP if self.exhausted else Verdict.TOO_MANY
        self._seen.append(seen)
        return seen

    def _find(self, host: str, port: int) -> Find | None:
        """How a host is looked up that may be reached. What a pattern stands for are names, and never an address."""
        exact = None if "*" in host else self._listed.get(f"{host}:{port}")
        if exact is not None or not hosts.is_name(host):
            return exact
        patterns = hosts.patterns_for(host, port)
        return next((self._listed[entry] for entry in patterns if entry in self._listed), None)

    async def _found(self, seen: _Seen) -> Sequence[Address]:
        """Where an admitted connection may go: looked up once, so that what was checked is what is dialled."""
        find = self._find(seen.host, seen.port)
        if seen.verdict is not Verdict.ALLOWED or find is None:
            return ()
        try:
            return await find(seen.host, seen.port)
        except SandboxFailure as failure:
            refused = failure.reason == "address_refused"
            seen.verdict = Verdict.ADDRESS_REFUSED if refused else Verdict.UNRESOLVED
            return ()

    async def _relay(self, seen: _Seen, near: _Streams, far: _Streams) -> None:
        def sent(count: int) -> bool:
            seen.sent_bytes += count
            return self._spend(seen, count)

        def received(count: int) -> bool:
            seen.received_bytes += count
            return self._spend(seen, count)

        try:
            near[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await near[1].drain()
            silence = _Silence()
            up = asyncio.ensure_future(_copy(near[0], far[1], sent, silence))
            down = asyncio.ensure_future(_copy(far[0], near[1], received, silence))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                # Where the client has said everything, the answer may still be on its way.
                await asyncio.wait({down}, timeout=None if up.done() else 0)
            finally:
                for task in (up, down):
                    task.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        finally:
            await _close(far[1])

    def _spend(self, seen: _Seen, count: int) -> bool:
        """Takes `count` bytes from the budget; says whether it sufficed."""
        self._left_bytes -= count
        if self.exhausted:
            seen.verdict = Verdict.BYTES_USED_UP
        return not self.exhausted


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _requested(request: bytes) -> tuple[str, str]:
    """Method and target of a well-formed CONNECT, else two empty words."""
    line = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(line) != 3 or line[0] != "CONNECT" or not line[2].startswith("HTTP/1."):
        return "", ""
    return line[0], line[1].lower()


def _shown(host: str) -> str:
    """A host as a client named it, fit for a record."""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in host[:_LONGEST_HOST])


def _number(port: str) -> int:
    return int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0


async def _dial(addresses: Sequence[Address], seen: _Seen) -> _Streams | None:
    for address in addresses:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_DIAL_SECONDS):
                # The checked address, never the name: the name may stand for another one by now.
                return await asyncio.open_connection(str(address), seen.port)
    seen.verdict = Verdict.UNREACHABLE
    return None


class _Silence:
    """How long nothing has been said on a connection, by neither side: a download is no silence of its client."""

    def __init__(self) -> None:
        self.broken()

    def broken(self) -> None:
        self._since = asyncio.get_running_loop().time()

    @property
    def left(self) -> float:
        """Seconds until it has lasted too long."""
        return self._since + _IDLE_SECONDS - asyncio.get_running_loop().time()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spend: Callable[[int], bool], silence: _Silence
) -> None:
    with suppress(OSError, TimeoutError):
        while (piece := await _read(reader, silence)) and spend(len(piece)):
            silence.broken()
            writer.write(piece)
            async with asyncio.timeout(_IDLE_SECONDS):
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _read(reader: asyncio.StreamReader, silence: _Silence) -> bytes:
    """The next piece, empty at the end. Raises `TimeoutError` after too long a silence, and `OSError`."""
    while (left := silence.left) > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                return await reader.read(_PIECE_BYTES)
    raise TimeoutError


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
