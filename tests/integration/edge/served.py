"""An edge that really listens, for what an in-process transport cannot show: WebSockets, slow clients, closing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from codeagent import clock
from codeagent.agent_registry.registry import AgentRegistry
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.cli.process import HttpServer, bind
from codeagent.edge.app import create_app
from codeagent.edge.context import EdgeContext, EdgePolicy, SocketLimits
from codeagent.edge.live import LiveHub
from codeagent.edge.views import RunViews
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from codeagent.identity.api_keys import ApiKeys
from codeagent.identity.keys import KeyHasher, KeyRing, digest_of_key, new_key
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import Scope
from codeagent.identity.tickets import StreamTickets
from tests.integration.eventlog.steps import TENANT

SUBPROTOCOL = "cloudevents.json"
EXPIRES_SECONDS = 1.0


def _principals() -> dict[str, Principal]:
    mine = Principal(TENANT, "usr_mine", "key_mine")
    return {
        "mine": mine,
        "renewed": replace(mine, credential_id="key_renewed"),
        "theirs": Principal("ten_other", "usr_theirs", "key_theirs"),
        "elsewhere": replace(mine, credential_id="key_elsewhere", networks=(ip_network("192.0.2.0/24"),)),
        "narrow": replace(mine, credential_id="key_narrow", scopes=frozenset({Scope.RUNS_WRITE})),
        "brief": replace(mine, credential_id="key_brief", expires_at=clock.now() + timedelta(seconds=EXPIRES_SECONDS)),
    }


@dataclass
class ServedEdge:
    """`keys` by name: `mine`, `renewed` (the same caller), `theirs`, `elsewhere` (good in another network),
    `narrow` (may not read runs), `brief` (expires)."""

    url: str
    hub: LiveHub
    keys: dict[str, str]
    revoked: set[str] = field(default_factory=set)
    server: HttpServer | None = None

    async def stop(self) -> None:
        await self.hub.stop()
        assert self.server is not None
        await self.server.stop()

    def revoke(self, name: str) -> None:
        self.revoked.add(f"key_{name}")
        self.hub.recheck()

    async def now(self) -> str:
        """The feed's cursor behind all that was written until now."""
        async with self.http() as http:
            return str((await http.get("/v1/events", params={"after": "latest"})).json()["cursor"])

    async def ticket(self, run_id: str | None = None, key: str = "mine") -> str:
        async with self.http(key) as http:
            answer = await http.post("/v1/stream-tickets", json={"run_id": run_id} if run_id else None)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["ticket"])

    def http(self, key: str | None = "mine") -> httpx2.AsyncClient:
        headers = {} if key is None else {"X-API-Key": self.keys[key]}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20.0, trust_env=False)

    @asynccontextmanager
    async def socket(self, query: str = "", **options: Any) -> AsyncIterator[Socket]:
        """A WebSocket that has said nothing yet."""
        settings = {"subprotocols": [SUBPROTOCOL], "proxy": None, "ping_interval": None, **options}
        async with connect(f"{self.url.replace('http', 'ws')}/v1/ws{query}", **settings) as connection:
            yield Socket(connection)

    @asynccontextmanager
    async def session(self, key: str = "mine", **options: Any) -> AsyncIterator[Socket]:
        """A WebSocket that is authenticated."""
        async with self.socket(**options) as socket:
            await socket.send(type="auth", token=self.keys[key])
            assert (await socket.next())["type"] == "ready"
            yield socket


@dataclass
class Socket:
    """A client that speaks frames."""

    connection: ClientConnection

    async def send(self, **frame: object) -> None:
        await self.connection.send(json.dumps(frame))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return dict(json.loads(await self.connection.recv()))

    async def until(self, kind: str) -> dict[str, Any]:
        """The next frame of a type; what comes before it is left out."""
        while (frame := await self.next())["type"] != kind:
            pass
        return frame

    async def events(self, count: int) -> list[dict[str, Any]]:
        return [await self.until("event") for _ in range(count)]

    async def closed(self) -> tuple[int, str]:
        """Reads to the end; the code and the reason that the server gave."""
        async with asyncio.timeout(20):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as error:
                return (error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else (1006, "")


@asynccontextmanager
async def served_edge(
    database_url: str, *, heartbeat_seconds: float = 15.0, sockets: SocketLimits | None = None
) -> AsyncIterator[ServedEdge]:
    """On a database of its own or another's, without a broker: live records are handed to its hub by the test."""
    database = Database(database_url, role=EDGE_ROLE)
    log, submissions = TenantLog(database), SubmissionLedger(database)
    principals = _principals()
    keys = {name: new_key() for name in principals}
    ring = KeyRing({digest_of_key(keys[name]): principal for name, principal in principals.items()})
    edge = ServedEdge("", LiveHub(log), keys)

    async def authenticate(key: str) -> Principal | None:
        return ring.authenticate(key)

    policy = EdgePolicy(
        durable_accept=True,
        default_model="builtin/repair",
        max_body_bytes=10_000,
        max_upload_bytes=10_000,
        submit_expiry_seconds=60,
        heartbeat_seconds=heartbeat_seconds,
        allowed_origins=("https://console.example.com",),
        sockets=sockets or SocketLimits(),
    )
    context = EdgeContext(
        database=database,
        log=log,
        submissions=submissions,
        publisher=Publisher(KafkaConnection("127.0.0.1:1", "test")),
        hand_over=lambda _: None,
        store=None,  # type: ignore[arg-type]  # nothing here has artifacts
        known=None,  # type: ignore[arg-type]
        hub=edge.hub,
        views=RunViews(log, submissions),
        authenticate=authenticate,
        still_valid=lambda principal: principal.credential_id not in edge.revoked,
        tickets=StreamTickets(database),
        keys=ApiKeys(database, KeyHasher(), longest_life=timedelta(days=365)),
        agents=AgentRegistry.on(database),
        supports_model=lambda _: True,
        checks={},
        policy=policy,
    )
    listener = bind("127.0.0.1", 0)
    edge.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    edge.server = HttpServer(create_app(context), listener, 1.0)
    await edge.server.start()
    try:
        yield edge
    finally:
        await edge.stop()
        await database.close()
