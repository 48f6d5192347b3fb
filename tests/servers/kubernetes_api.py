"""An API server of Kubernetes, as far as the driver needs one: it holds every request against the published schemas, and
refuses whatever it does not know and every pod that is not hardened. Pods run on this machine; root and bubblewrap needed.

Its pods have no limit of memory, no filter of system calls and no user namespace: the driver's probe has to see that.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any

import kubernetes_validate
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.servers.pod_containers import PodOnThisMachine

VERSION = "1.37"
NAMESPACE = "codeagent-sandboxes"
TOKEN = "token-of-the-worker"
PROTOCOL = "v5.channel.k8s.io"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
FIRST_UID = 210_000


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def complaints(spec: dict[str, Any], runtime_classes: set[str]) -> list[str]:
    """What a pod lacks of what every sandbox has to have."""
    wanted: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "None",
    }
    found = [name for name, value in wanted.items() if spec.get(name) != value]
    pod = spec.get("securityContext", {})
    if (
        not pod.get("runAsNonRoot")
        or not pod.get("runAsUser")
        or pod.get("seccompProfile", {}).get("type") != "RuntimeDefault"
    ):
        found.append("securityContext")
    if not spec.get("activeDeadlineSeconds") or spec.get("terminationGracePeriodSeconds", 30) > 2:
        found.append("deadlines")
    if "runtimeClassName" in spec and spec["runtimeClassName"] not in runtime_classes:
        found.append(f'RuntimeClass "{spec["runtimeClassName"]}" not found')
    if "runtimeClassName" not in spec and spec.get("hostUsers") is not False:
        found.append("hostUsers")
    for volume in spec.get("volumes", []):
        room = volume.get("emptyDir", {})
        if set(volume) != {"name", "emptyDir"} or room.get("medium") != "Memory" or not room.get("sizeLimit"):
            found.append(f"volume {volume['name']}")
    for box in spec["containers"]:
        found += [f"container {box['name']}: {lack}" for lack in container_complaints(box)]
    return found


def container_complaints(box: dict[str, Any]) -> list[str]:
    context, resources = box.get("securityContext", {}), box.get("resources", {})
    checks = {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        "privileged": not context.get("privileged"),
        "resources": bool(resources.get("limits")) and resources.get("limits") == resources.get("requests"),
        "amounts": {"cpu", "memory", "ephemeral-storage"} <= set(resources.get("limits", {})),
        "image": "@sha256:" in box.get("image", ""),
        "env": not box.get("env") and not box.get("envFrom"),
    }
    return [name for name, holds in checks.items() if not holds]


class KubernetesApi:
    """Serves HTTP on loopback. What it is told to do wrong:

    `refuses`: a status and a message for the next pod. `drops`: a field of pods that it forgets. `waits`: why containers
    never start. `breaks`: what becomes of the pod instead of the next command: `OOMKilled` (its container is started
    again), or why it ends as a whole.
    """

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.runtime_classes = {"gvisor"}
        self.requests: list[str] = []
        self.token = TOKEN
        self.refuses: tuple[int, str] | None = None
        self.drops = ""
        self.waits = ""
        self.breaks = ""
        self._running: dict[str, PodOnThisMachine] = {}
        self._made = 0
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        app = Starlette(
            routes=[
                WebSocketRoute(f"{PODS}/{{name}}/exec", self._exec),
                Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="websockets-sansio", lifespan="off"))
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
            return JSONResponse(self._handle(request, body))
        except Refusal as refusal:
            told = {"kind": "Status", "status": "Failure", "code": refusal.status, "message": str(refusal)}
            return JSONResponse(told, refusal.status)

    def _handle(self, request: Request, body: Any) -> dict[str, Any]:
        query = dict(request.query_params)
        path, name = request.url.path, request.url.path.rpartition("/")[2]
        match request.method, path:
            case "GET", "/version" if not query:
                return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
            case "POST", _ if path == POLICIES and not query:
                return self._keep(self.policies, "NetworkPolicy", body)
            case "GET", _ if path == f"{POLICIES}/{name}" and not query and name in self.policies:
                return self.policies[name]
            case "POST", _ if path == PODS and not query:
                return self._make(body)
            case "GET", _ if path == PODS and set(query) == {"labelSelector", "limit"}:
                key, _, value = query["labelSelector"].partition("=")
                return {
                    "items": [p for p in self.pods.values() if p["metadata"]["labels"].get(key) == value],
                    "metadata": {},
                }
            case (("GET" | "DELETE"), _) if path == f"{PODS}/{name}":
                if name not in self.pods:
                    raise Refusal(404, f'pods "{name}" not found')
                if request.method == "GET" and not query:
                    return self.pods[name]
                if request.method == "DELETE" and set(query) <= {"gracePeriodSeconds"}:
                    return self._remove(name)
        raise Refusal(400, f"unknown: {request.method} {path} {query}")

    def _keep(self, where: dict[str, dict[str, Any]], kind: str, body: Any) -> dict[str, Any]:
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refusal(422, f"{kind} is invalid: {error.message}") from None
        if body["kind"] != kind:
            raise Refusal(400, f"not a {kind}")
        name = body["metadata"]["name"]
        if name in where:
            raise Refusal(409, f"{name} already exists")
        where[name] = body
        return dict(body)

    def _make(self, body: Any) -> dict[str, Any]:
        if self.refuses is not None:
            (status, message), self.refuses = self.refuses, None
            raise Refusal(status, message)
        if lacks := complaints(body["spec"], self.runtime_classes):
            raise Refusal(403, f"pod is forbidden: {', '.join(lacks)}")
        labels = body["metadata"]["labels"]
        if not any(p["spec"]["podSelector"]["matchLabels"].items() <= labels.items() for p in self.policies.values()):
            raise Refusal(403, "pod is forbidden: no network policy covers it")
        self._keep(self.pods, "Pod", body)
        name = body["metadata"]["name"]
        body["spec"].pop(self.drops, None)
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
        return dict(body)

    def _remove(self, name: str) -> dict[str, Any]:
        if (running := self._running.pop(name, None)) is not None:
            running.end()
        return self.pods.pop(name)

    async def _exec(self, connection: WebSocket) -> None:
        name, query = connection.path_params["name"], connection.query_params
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
        process = await running.containers[query["container"]].start(query.getlist("command"))
        feeding = asyncio.ensure_future(feed(connection, process))
        with suppress(WebSocketDisconnect, RuntimeError):
            await asyncio.gather(carry(connection, 1, process.stdout), carry(connection, 2, process.stderr))
            code = await process.wait()
            if running.containers.get(query["container"]) is not None and name in self.pods:
                await connection.send_bytes(b"\x03" + status(128 - code if code < 0 else code))
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


def status(code: int) -> bytes:
    """As the API server words the end of a program."""
    told: dict[str, Any] = {"metadata": {}, "status": "Success"}
    if code:
        told = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode"}
        told["details"] = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return json.dumps(told).encode()
