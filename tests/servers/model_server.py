"""A model server on loopback that speaks four vendors' protocols from one script: OpenAI Chat Completions and
Responses, Anthropic Messages, and Google's Gemini API.

Run it for demonstrations: `python -m tests.servers.model_server --script FILE --port N`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.servers import anthropic_messages, google_gemini, openai_chat, openai_responses
from tests.servers.script import SECRET_TEXT, Fault, Reply, Script, read_script


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def api_key(self) -> str:
        given = self.headers.get("x-api-key") or self.headers.get("x-goog-api-key")
        return given or self.headers.get("authorization", "").removeprefix("Bearer ")


class CutConnection(Exception):
    """Raised inside a response so that the connection is dropped without an end."""


@dataclass(slots=True)
class ModelServer:
    """Serves a script from a thread of its own. `accepted_keys` empty means any key is good."""

    script: Script = field(default_factory=Script)
    accepted_keys: set[str] = field(default_factory=set)
    port: int = 0
    received: list[Received] = field(default_factory=list)
    disconnects: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def openai_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def url(self) -> str:
        """Where the others add their own paths."""
        return f"http://127.0.0.1:{self.port}"

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", lambda _request: JSONResponse({"status": "ok"})),
                *(
                    Route(vendor.PATH, partial(self._answer, vendor=vendor), methods=["POST"])
                    for vendor in (openai_chat, openai_responses, anthropic_messages, google_gemini)
                ),
            ]
        )

    async def _answer(self, request: Request, vendor: ModuleType) -> Response:
        body = await request.json()
        if vendor is google_gemini:
            # The others say this inside.
            body |= {"model": request.path_params["model"], "stream": True}
        record = Received(request.url.path, dict(request.headers), body)
        self.received.append(record)
        if self.accepted_keys and record.api_key not in self.accepted_keys:
            return JSONResponse(vendor.error_body(401, None), status_code=401)
        if vendor.refusal(body):
            return JSONResponse(vendor.error_body(400, None), status_code=400)
        turn, reply = self.script.next(vendor.assistant_messages(body))
        await asyncio.sleep(reply.delay_seconds)
        if reply.fault is not None and (refusal := await self._refusal(request, vendor, reply.fault)) is not None:
            return refusal
        if not body.get("stream"):
            return JSONResponse(vendor.whole(reply, turn, body["model"]))
        return StreamingResponse(self._stream(vendor, reply, turn, body), media_type="text/event-stream")

    async def _refusal(self, request: Request, vendor: ModuleType, fault: Fault) -> Response | None:
        """The faults that replace the whole answer; None for those inside a stream."""
        match fault.kind:
            case "status":
                content = vendor.error_body(fault.status, fault.code)
                return JSONResponse(content, status_code=fault.status, headers=dict(fault.headers))
            case "error_body":
                return JSONResponse(vendor.error_body(fault.status, fault.code))
            case "html":
                page = f"<html><body>{SECRET_TEXT}: sign in to the hotel network</body></html>"
                return HTMLResponse(page, status_code=fault.status)
            case "empty":
                return Response(b"", media_type="text/event-stream")
            case "endless_error":
                return StreamingResponse(_without_end(SECRET_TEXT), fault.status)
            case "compressed":
                bomb = gzip.compress(b"data: " + b" " * 1_000_000) * 100
                headers = {"content-encoding": "gzip", "content-type": "text/event-stream"}
                return Response(bomb, headers=headers)
            case "hang_before":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                self.disconnects += 1
                return Response(status_code=499)
        return None

    async def _stream(self, vendor: ModuleType, reply: Reply, turn: int, body: dict[str, Any]) -> AsyncIterator[str]:
        finished = False
        try:
            events = list(vendor.events(reply, turn, body["model"], body))
            kind = reply.fault.kind if reply.fault else ""
            middle = 0 if kind in _FROM_THE_START else max(2, len(events) // 2)
            for event in events[:middle] if kind else events:
                yield event
                await asyncio.sleep(reply.chunk_delay_seconds)
            if reply.fault is not None:
                async for event in _broken_off(vendor, reply.fault, events[middle - 1]):
                    yield event
            if kind == "unknown_event":
                for event in events[middle:]:
                    yield event
            finished = True
        finally:
            self.disconnects += not finished

    def __enter__(self) -> ModelServer:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(self.app(), lifespan="off", log_level="critical", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(timeout=10)


async def _without_end(text: str) -> AsyncIterator[str]:
    while True:
        yield text * 1_000
        await asyncio.sleep(0)


_FROM_THE_START = frozenset({"hang_after_headers", "keepalive", "endless_line"})


async def _broken_off(vendor: ModuleType, fault: Fault, event: str) -> AsyncIterator[str]:
    """What follows the first half of an answer that never becomes whole."""
    match fault.kind:
        case "hang_mid" | "hang_after_headers":
            await asyncio.sleep(3600)
        case "cut_mid":
            raise CutConnection
        case "keepalive" | "flood" | "endless_line":
            again = {"keepalive": vendor.KEEP_ALIVE, "flood": event, "endless_line": "data: " + " " * 1_000_000}
            while True:
                yield again[fault.kind]
                await asyncio.sleep(0.02 if fault.kind == "keepalive" else 0)
        case "malformed":
            yield "event: content_block_delta\ndata: {this is not json\n\n"
        case "error_event":
            yield vendor.error_event(fault.status, fault.code)
        case "unknown_event":
            yield vendor.UNKNOWN_EVENT
        case "wrong_shape":
            yield _bent(event)


def _bent(event: str) -> str:
    """`event` with a text in place of every object and list in it."""
    lines = [line for line in event.splitlines() if not line.startswith("data: ")]
    document = json.loads(
        next(line for line in event.splitlines() if line.startswith("data: {")).removeprefix("data: ")
    )
    bent = {name: SECRET_TEXT if isinstance(value, dict | list) else value for name, value in document.items()}
    return "\n".join([*(line for line in lines if line), f"data: {json.dumps(bent)}", "", ""])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", type=Path, required=True, help="JSON file with the replies")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    server = ModelServer(script=read_script(options.script), port=options.port)
    listener = socket.create_server(("127.0.0.1", server.port))
    server.port = listener.getsockname()[1]
    addresses = {"openai": server.openai_url, "anthropic": server.url, "google": server.url}
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
    config = uvicorn.Config(server.app(), lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
