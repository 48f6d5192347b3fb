"""A vault on loopback that speaks the wire protocol of HashiCorp Vault: KV version 2, tokens and AppRole; with faults."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

Fault = Literal["hang", "drip", "cut", "html", "flood", "redirect"] | int
"""Instead of the answer to one request; a number is a status."""


class CutConnection(Exception):
    """Raised inside a response so that the connection is dropped without an end."""


@dataclass(slots=True)
class VaultServer:
    """`tokens` may read everything. Logins with `role` give tokens that end when `forget_logins` is called."""

    mount: str = "secret"
    namespace: str | None = None
    tokens: set[str] = field(default_factory=lambda: {"hvs.root-of-the-test"})
    role: tuple[str, str] = ("role-1", "secret-1")
    lease_seconds: int = 3600
    stored: dict[str, dict[str, object] | None] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    logins: int = 0
    port: int = 0
    _issued: set[str] = field(default_factory=set)
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget_logins(self) -> None:
        self._issued.clear()

    async def _read(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.reads.append(path)
        if (faulty := await self._faulty()) is not None:
            return faulty
        if request.headers.get("x-vault-token") not in self.tokens | self._issued:
            return _errors(403, "permission denied")
        if request.headers.get("x-vault-namespace") != self.namespace:
            return _errors(404)
        if path not in self.stored:
            return _errors(404)
        data = self.stored[path]
        metadata = {"created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": False, "version": 1}
        return JSONResponse(
            {"request_id": "r", "lease_id": "", "lease_duration": 0, "data": {"data": data, "metadata": metadata}},
            200 if data is not None else 404,
        )

    async def _login(self, request: Request) -> Response:
        self.logins += 1
        if (faulty := await self._faulty()) is not None:
            return faulty
        body = await request.json()
        if (body.get("role_id"), body.get("secret_id")) != self.role:
            return _errors(400, "invalid role or secret ID")
        token = f"hvs.{secrets.token_hex(12)}"
        self._issued.add(token)
        auth = {"client_token": token, "lease_duration": self.lease_seconds, "renewable": True}
        return JSONResponse({"request_id": "r", "auth": auth})

    async def _faulty(self) -> Response | None:
        if not self.faults:
            return None
        match fault := self.faults.pop(0):
            case "hang":
                await asyncio.sleep(3600)
            case "html":
                return HTMLResponse("<html><body>Sign in to the hotel network</body></html>")
            case "redirect":
                return RedirectResponse("http://127.0.0.1:1/v1/elsewhere", 307)
            case "drip" | "cut" | "flood":
                return StreamingResponse(_badly(fault), media_type="application/json")
            case int():
                return _errors(fault, "Vault is sealed")
        return None

    def __enter__(self) -> VaultServer:
        routes = [
            Route(f"/v1/{self.mount}/data/{{path:path}}", self._read),
            Route("/v1/auth/approle/login", self._login, methods=["POST"]),
        ]
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(Starlette(routes=routes), lifespan="off", log_level="critical")
        config.timeout_graceful_shutdown = 0
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(timeout=10)


async def _badly(fault: str) -> AsyncIterator[bytes]:
    yield b'{"data": {"data": '
    while fault == "drip":
        await asyncio.sleep(0.02)
        yield b" "
    for _ in range(64 if fault == "flood" else 0):
        yield b" " * 65_536
    raise CutConnection


def _errors(status: int, *errors: str) -> Response:
    return JSONResponse({"errors": list(errors)}, status)
