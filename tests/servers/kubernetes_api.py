"""An API server of Kubernetes, as far as the driver needs one: it holds every request against the published schemas, and
refuses whatever it does not know and every pod that is not hardened. Pods run on this machine; root and bubblewrap needed.

Its pods have no limit of memory, no filter of system calls and no user namespace: the driver's probe has to see that.
"""

from __future__ import annotations

import asyncio
import copy
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.servers.pod_containers import PodOnThisMachine
from tests.servers.pod_rules import complaints, covers, selected

VERSION = "1.37"
NAMESPACE = "codeagent-sandboxes"
TOKEN = "token-of-the-worker"
PROTOCOL = "v5.channel.k8s.io"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
FIRST_UID = 210_000
LOST = 1


class Refusal(Exception):
    def __init__(self, status: int, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class KubernetesApi:
    """Serves HTTPS on loopback. `made`: the pods it was asked for; `addresses`: where programs were started.

    What it is told to do wrong:

    `refuses`: a status and a message for the next pod. `fails`: for the next requests in turn, a method, a status and the
    reason it names; `LOST` as a status: it does what it was asked, and never answers; the method `EXEC` stands for
    starting a program. `changes`: what an admission hook does to a pod. `waits`: why containers never start. `breaks`:
    what becomes of the pod instead of the next command: `OOMKilled` (its container is started again), or why it ends as
    a whole.
    """

    def __init__(self, key: Path, certificate: Path) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.runtime_classes = {"gvisor"}
        self.requests: list[str] = []
        self.addresses: list[str] = []
        self.made: list[dict[str, Any]] = []
        self.token = TOKEN
        self.refuses: tuple[int, str] | None = None
        self.fails: list[tuple[str, int, str]] = []
        self.changes: Callable[[dict[str, Any]], object] = lambda spec: None
        self.waits = ""
        self.breaks = ""
        self._running: dict[str, PodOnThisMachine] = {}
        self._made = 0
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listener.getsockname()[1]}"
        app = Starlette(
            routes=[
                WebSocketRoute(f"{PODS}/{{name}}/exec", self._exec),
                Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            ws="websockets-sansio",
            lifespan="off",
            ssl_keyfile=key,
            ssl_certfile=certificate,
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> KubernetesApi:
        self._task = asyncio.ensure_future(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self.pods):
            self._remove(name)
        self._server.should_exit = self._server.force_exit = True
        assert self._task is not None
        await self._task

    async def _answer(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.url.path}")
        try:
            if request.headers.get("authorization") != f"Bearer {self.token}":
                raise Refusal(401, "Unauthorized")
            body = json.loads(await request.body() or b"null")
            status, kind = self._fault(request.method)
            if status not in (0, LOST):
                raise Refusal(status, "as told", kind)
            answer = self._handle(request, body)
            if status == LOST:
                raise ConnectionAbortedError
            return JSONResponse(answer)
        except Refusal as refusal:
            told = {"kind": "Status", "status": "Failure", "code": refusal.status, "message": str(refusal)}
            return JSONResponse({**told, "reason": refusal.kind}, refusal.status)

    def _fault(self, method: str) -> tuple[int, str]:
        if self.fails and self.fails[0][0] == method:
            return self.fails.pop(0)[1:]
        return 0, ""

    def _handle(self, request: Request, body: Any) -> dict[str, Any]:
        query = dict(request.query_params)
        path, name = request.url.path, request.url.path.rpartition("/")[2]
        match request.method, path:
            case "GET", "/version" if not query:
                return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
            case "POST", _ if path == POLICIES and not query:
                return self._keep(self.policies, "NetworkPolicy", body)
            case "GET", _ if path == f"{POLICIES}/{name}" and not query:
                return self._found(self.policies, name)
            case "POST", _ if path == PODS and not query:
                return self._make(body)
            case "GET", _ if path == PODS and set(query) == {"labelSelector", "limit"}:
                return {"items": selected(self.pods.values(), query["labelSelector"]), "metadata": {}}
            case "GET", _ if path == f"{PODS}/{name}" and not query:
                return self._found(self.pods, name)
            case "DELETE", _ if path == f"{PODS}/{name}" and set(query) <= {"gracePeriodSeconds"}:
                self._found(self.pods, name)
                return self._remove(name)
        raise Refusal(400, f"unknown: {request.method} {path} {query}")

    def _found(self, where: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
        if name not in where:
            raise Refusal(404, f'"{name}" not found', "NotFound")
        return where[name]

    def _keep(self, where: dict[str, dict[str, Any]], kind: str, body: Any) -> dict[str, Any]:
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refusal(422, f"{kind} is invalid: {error.message}") from None
        if body["kind"] != kind:
            raise Refusal(400, f"not a {kind}")
        name = body["metadata"]["name"]
        if name in where:
            raise Refusal(409, f"{name} already exists", "AlreadyExists")
        where[name] = body
        return dict(body)

    def _make(self, body: Any) -> dict[str, Any]:
        if self.refuses is not None:
            (status, message), self.refuses = self.refuses, None
            raise Refusal(status, message)
        if lacks := complaints(body["spec"], self.runtime_classes):
            raise Refusal(403, f"pod is forbidden: {', '.join(lacks)}")
        if not any(covers(policy, body["metadata"]["labels"]) for policy in self.policies.values()):
            raise Refusal(403, "pod is forbidden: no network policy covers it")
        self._keep(self.pods, "Pod", body)
        self.made.append(copy.deepcopy(body))
        name = body["metadata"]["name"]
        body["metadata"]["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body["spec"]["nodeName"] = "node"
        state = {"waiting": {"reason": self.waits, "message": "as told"}} if self.waits else {"running": {}}
        boxes = [
            {"name": box["name"], "restartCount": 0, "state": state, "lastState": {}}
            for box in body["spec"]["containers"]
        ]
        body["status"] = {"phase": "Pending" if self.waits else "Running", "containerStatuses": boxes}
        if not self.waits:
            self._made += 1
            self._running[name] = PodOnThisMachine(body["spec"], FIRST_UID + self._made)
        self.changes(body["spec"])
        return dict(body)

    def _remove(self, name: str) -> dict[str, Any]:
        if (running := self._running.pop(name, None)) is not None:
            running.end()
        return self.pods.pop(name)

    async def _exec(self, connection: WebSocket) -> None:
        name, query = connection.path_params["name"], connection.query_params
        self.addresses.append(str(connection.url))
        status, _ = self._fault("EXEC")
        if status not in (0, LOST):
            await connection.send_denial_response(Response(status_code=status))
            return
        known = {"container", "stdin", "stdout", "stderr", "command"}
        fits = set(query) == known and all(query[stream] == "true" for stream in ("stdin", "stdout", "stderr"))
        allowed = connection.headers.get("authorization") == f"Bearer {self.token}"
        running = self._running.get(name)
        if not fits or not allowed or running is None or PROTOCOL not in connection.scope["subprotocols"]:
            await connection.close()
            return
        await connection.accept(subprotocol=PROTOCOL)
        if self.breaks and query["container"] == "commands":
            self._break(name, running)
            await connection.close()
            return
        if status == LOST:
            await connection.close()
            return
        process = await running.containers[query["container"]].start(query.getlist("command"))
        feeding = asyncio.ensure_future(feed(connection, process))
        with suppress(WebSocketDisconnect, RuntimeError):
            await asyncio.gather(carry(connection, 1, process.stdout), carry(connection, 2, process.stderr))
            code = await process.wait()
            if running.containers.get(query["container"]) is not None and name in self.pods:
                await connection.send_bytes(b"\x03" + ending(128 - code if code < 0 else code))
            await connection.close()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)

    def _break(self, name: str, running: PodOnThisMachine) -> None:
        why, self.breaks = self.breaks, ""
        pod = self.pods[name]
        if why == "OOMKilled":
            running.restart(pod["spec"]["containers"][0])
            told = pod["status"]["containerStatuses"][0]
            told |= {
                "restartCount": told["restartCount"] + 1,
                "lastState": {"terminated": {"reason": why, "exitCode": 137}},
            }
            return
        self._running.pop(name).end()
        pod["status"] = {"phase": "Failed", "reason": why, "message": "as told", "containerStatuses": []}


async def feed(connection: WebSocket, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    with suppress(WebSocketDisconnect, ConnectionError, RuntimeError):
        while True:
            frame = await connection.receive_bytes()
            if frame == b"\xff\x00":
                process.stdin.close()
            elif frame[:1] == b"\x00":
                process.stdin.write(frame[1:])
                await process.stdin.drain()
            else:
                raise AssertionError(f"an unknown channel: {frame[:2]!r}")


async def carry(connection: WebSocket, channel: int, stream: asyncio.StreamReader | None) -> None:
    assert stream is not None
    while piece := await stream.read(1 << 15):
        await connection.send_bytes(bytes([channel]) + piece)


def ending(code: int) -> bytes:
    """As the API server words the end of a program."""
    told: dict[str, Any] = {"metadata": {}, "status": "Success"}
    if code:
        told = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode"}
        told["details"] = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return json.dumps(told).encode()
