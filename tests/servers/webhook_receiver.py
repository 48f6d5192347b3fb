"""A receiver of webhooks on loopback, http or https, that behaves as badly as it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook


@dataclass(frozen=True, slots=True)
class Received:
    """One request, whole. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    def document(self) -> Any:
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """The payload, as the official library makes sure of it. Raises where the signature does not hold."""
        return Webhook(secret).verify(self.body, dict(self.headers))


Behaviour = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 204, body: bytes = b"", **headers: str) -> Behaviour:
    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *(f"{n}: {v}" for n, v in named.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return behave


async def hang(_: Received, writer: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing."""
    await asyncio.sleep(3600)


async def reset(_: Received, writer: asyncio.StreamWriter) -> None:
    """Takes the request and resets the connection."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang_up(_: Received, writer: asyncio.StreamWriter) -> None:
    """Takes the request and closes the connection."""


async def drip(_: Received, writer: asyncio.StreamWriter) -> None:
    """An answer whose head never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000):
        writer.write(f"x-{number}: y\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.02)


async def unfinished_body(_: Received, writer: asyncio.StreamWriter) -> None:
    """Success, and a body that does not come."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(3600)


async def nonsense(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-whatever\r\n\r\n")
    await writer.drain()


@dataclass
class WebhookReceiver:
    """Listens on a thread of its own. `behaviours` are for the first requests, in order; `behaviour` for all others.
    With a key and a certificate it speaks TLS. Use as a context manager."""

    behaviour: Behaviour = field(default_factory=answer)
    behaviours: list[Behaviour] = field(default_factory=list)
    tls: tuple[Path, Path] | None = None
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}/hook?token=t0"

    def ids(self) -> list[str]:
        return [request.message_id for request in self.received]

    def wait_for(self, count: int, seconds: float = 30.0) -> list[Received]:
        """The requests once there are so many, for tests without an event loop."""
        deadline = time.monotonic() + seconds
        while len(self.received) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.received) >= count, f"{len(self.received)} of {count} came"
        return list(self.received)

    async def until(self, count: int, seconds: float = 30.0) -> list[Received]:
        """The requests once there are so many."""
        return await asyncio.to_thread(self.wait_for, count, seconds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (text.partition(":") for text in fields if text)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Received(line.split(" ")[1], headers, body, time.monotonic())
            behave = self.behaviours.pop(0) if self.behaviours else self.behaviour
            self.received.append(request)
            await behave(request, writer)
        writer.close()

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            context = None
            if self.tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.tls[1], self.tls[0])
            server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            with suppress(asyncio.CancelledError):
                await server.serve_forever()

        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # connections that were dropped on purpose
        self._main = self._loop.create_task(main())
        self._loop.run_until_complete(self._main)
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def __enter__(self) -> WebhookReceiver:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10)
