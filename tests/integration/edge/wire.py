"""The application behind the real server, and a client that speaks to it byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
from starlette.types import ASGIApp

from codeagent.cli.process import HttpServer, bind
from codeagent.edge.connections import ConnectionLimits, bounded


@dataclass
class Answer:
    """What came back: `headers` by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        problem = orjson.loads(self.body)
        assert len(problem["trace_id"]) == 32
        return str(problem["code"])


@dataclass
class Connection:
    """One connection. Everything on it has to happen within some seconds."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readline(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readline()
                await self.reader.readline()
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body)

    async def closed(self) -> bool:
        """Whether the server ends the connection, with nothing more to read."""
        async with asyncio.timeout(10):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


@dataclass
class Served:
    """A listening server."""

    port: int

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        made = Connection(reader, writer)
        try:
            yield made
        finally:
            made.close()


@asynccontextmanager
async def serve(app: ASGIApp, limits: ConnectionLimits | None = None, **options: int) -> AsyncIterator[Served]:
    """The application behind the edge's own server and protocol, on a free port of loopback."""
    listener = bind("127.0.0.1", 0)
    server = HttpServer(app, listener, 1.0, protocol=bounded(limits or ConnectionLimits()), **options)
    await server.start()
    try:
        yield Served(listener.getsockname()[1])
    finally:
        await server.stop()
