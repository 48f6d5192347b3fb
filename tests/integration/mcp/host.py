"""A server that speaks the Model Context Protocol over HTTP, by the protocol's own library, and goes wrong when told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server import MCPServer
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from codeagent.mcp.client import McpClient
from codeagent.mcp.servers import McpServers, McpServerSettings
from codeagent.messages.mcp import McpPin, McpTool, digest_of

Fault = Callable[[Request, dict[str, Any]], Response | None]
"""What is answered in the place of a message's own answer; None leaves it alone."""


@dataclass
class Host:
    """`called` are the arguments that its tool has had, `seen` the messages with their headers."""

    port: int = 0
    fault: Fault = lambda _request, _message: None
    called: list[str] = field(default_factory=list)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, **said: Any) -> McpServerSettings:
        url = f"http://127.0.0.1:{self.port}/mcp"
        return McpServerSettings(**{"name": "docs", "url": url, "private": True, "timeout_seconds": 10, **said})

    def client(self, *, most_bytes: int = 1 << 20, **said: Any) -> McpClient:
        return McpClient(McpServers([self.settings(**said)]), most_bytes=most_bytes)

    def methods(self) -> list[str]:
        return [method for method, _ in self.seen]

    async def pin(self, *names: str) -> McpPin:
        offered = await self.client().tools("docs")
        return McpPin(tools=names, digest=digest_of(tool for tool in offered if tool.name in names))

    async def tool(self, name: str) -> McpTool:
        return next(tool for tool in await self.client().tools("docs") if tool.name == name)

    def app(self) -> Any:
        server = MCPServer("docs")

        @server.tool()
        async def note(text: str) -> str:
            """Write something down."""
            self.called.append(text)
            self.running.set()
            if text == "wait":
                await self.goes_on.wait()
            if text == "fail":
                raise ValueError
            return text * 10_000 if text == "long" else f"noted \x1b[31m{text}"

        @server.tool()
        def count() -> int:
            """How many notes there are."""
            return len(self.called)

        inner = server.streamable_http_app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["method"] != "POST":
                await inner(scope, receive, send)
                return
            request = Request(scope, receive)
            body = await request.body()
            message = json.loads(body)
            self.seen.append((message["method"], dict(request.headers)))
            answer = self.fault(request, message)
            if answer is not None:
                await answer(scope, receive, send)
            else:
                await inner(scope, _again(body, receive), send)

        return app


def _again(body: bytes, receive: Any) -> Any:
    told = False

    async def read() -> Any:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


@asynccontextmanager
async def serving(host: Host) -> AsyncIterator[Host]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host.port = listener.getsockname()[1]
        config = uvicorn.Config(host.app(), log_config=None, timeout_graceful_shutdown=1, lifespan="on")
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[method-assign]  # they are the test's
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield host
        finally:
            host.goes_on.set()
            server.should_exit = True
            await task


def on(method: str, answer: Callable[[], Response]) -> Fault:
    """The fault, for messages of one method alone."""
    return lambda _, message: answer() if message["method"] == method else None


def endless(line: bytes) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        while True:
            yield line
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/event-stream")


def silent() -> Response:
    async def nothing() -> AsyncIterator[bytes]:
        yield b": here\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(nothing(), media_type="text/event-stream")
