"""Edges as they are composed, each with a database of its own, serving real HTTP; without a broker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2

from codeagent import clock
from codeagent.agent_registry.registry import AgentRegistry
from codeagent.artifacts.known import KnownArtifacts
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.cli.identity import Identity, identify, secret_box
from codeagent.cli.process import HttpServer, bind
from codeagent.edge.app import create_app
from codeagent.edge.context import EdgeContext, EdgePolicy
from codeagent.edge.live import LiveHub
from codeagent.edge.views import RunViews
from codeagent.encryption import new_key_line
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from codeagent.identity.keys import digest_of_key, new_key
from codeagent.identity.scopes import SCOPES_OF, Role
from codeagent.identity.tickets import StreamTickets
from codeagent.providers.offers import Offers
from codeagent.providers.registry import ProviderRegistry
from codeagent.settings import Settings, read_settings
from tests.services.deaf import DeafDatabase

MINE, OTHERS = "ten_mine", "ten_others"
NO_BROKER = "127.0.0.1:1"
KEK = new_key_line("test")


@dataclass(frozen=True)
class Keys:
    """Keys of the file: an owner of each tenant, a developer, one who may do nothing."""

    owner: str
    developer: str
    stranger: str
    powerless: str

    @classmethod
    def written_to(cls, path: Path) -> Keys:
        keys = cls(*(new_key() for _ in range(4)))
        entries = [
            (keys.owner, MINE, "usr_owner", SCOPES_OF[Role.OWNER]),
            (keys.developer, MINE, "usr_developer", SCOPES_OF[Role.DEVELOPER]),
            (keys.stranger, OTHERS, "usr_stranger", SCOPES_OF[Role.OWNER]),
            (keys.powerless, MINE, "usr_powerless", frozenset()),
        ]
        names = ("key_id", "sha256", "tenant_id", "principal_id", "scopes")
        listed = [
            dict(zip(names, (f"key_{who}", digest_of_key(key), tenant, who, sorted(scopes)), strict=True))
            for key, tenant, who, scopes in entries
        ]
        path.write_text(json.dumps(listed))
        return keys


class Watched(Database):
    """Counts its queries by what they contain."""

    queries: list[str]

    async def fetch(self, query: str, *arguments: Any, tenant: str = "") -> Sequence[Any]:
        self.queries.append(query)
        return await super().fetch(query, *arguments, tenant=tenant)


class DeafWatched(DeafDatabase, Watched):
    """Both."""


@dataclass
class Edge:
    """One edge and a client of it that shows no key of its own."""

    http: httpx2.AsyncClient
    database: Watched
    identity: Identity
    keys: Keys

    async def call(self, key: str, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}", **options.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **options)

    async def make_key(self, maker: str, **body: Any) -> dict[str, Any]:
        """A key made over HTTP; `key` is the key itself."""
        wanted = {"name": "test", "scopes": ["runs:read"], **body}
        headers = {"Idempotency-Key": str(clock.new_uuid())}
        made = await self.call(maker, "POST", "/v1/api-keys", json=wanted, headers=headers)
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def accepts(self, key: str) -> bool:
        answer = await self.call(key, "GET", "/v1/runs?limit=1")
        assert answer.status_code in {200, 401}, answer.text
        return answer.status_code == 200

    async def revoke(self, revoker: str, key_id: str) -> httpx2.Response:
        etag = (await self.call(revoker, "GET", f"/v1/api-keys/{key_id}")).headers["etag"]
        return await self.call(revoker, "DELETE", f"/v1/api-keys/{key_id}", headers={"If-Match": etag})


def settings_of(url: str, folder: Path, **more: Any) -> Settings:
    where = {"database_url": url, "kafka_bootstrap_servers": NO_BROKER, "api_keys_file": folder / "api-keys.json"}
    return read_settings(**where, kek=KEK, **more)


@asynccontextmanager
async def running_edge(url: str, folder: Path, keys: Keys, *, deaf: bool = False, **more: Any) -> AsyncIterator[Edge]:
    """`deaf`: notifications do not reach it."""
    settings = settings_of(url, folder, **more)
    database = (DeafWatched if deaf else Watched)(url, connections=4, role=EDGE_ROLE)
    database.queries = []
    identity = identify(settings, database, secret_box(settings))
    log, submissions, store = TenantLog(database), SubmissionLedger(database), LocalArtifactStore(folder / "artifacts")
    hub = LiveHub(log)
    identity.revocations.notify(hub.recheck)
    context = EdgeContext(
        database=database,
        log=log,
        submissions=submissions,
        publisher=Publisher(KafkaConnection(NO_BROKER, "test", idempotent=False, timeout_seconds=1.0)),
        hand_over=lambda _: None,
        store=store,
        known=KnownArtifacts(store),
        hub=hub,
        views=RunViews(log, submissions),
        authenticate=identity.authenticate,
        still_valid=identity.still_valid,
        tickets=StreamTickets(database),
        keys=identity.keys,
        agents=AgentRegistry.on(database),
        users=identity.users,
        supports_model=lambda model: not model.startswith("unknown/"),
        checks={"revocations": identity.revocations.current},
        policy=EdgePolicy(
            durable_accept=True,
            default_model="builtin/repair",
            max_body_bytes=100_000,
            max_upload_bytes=1 << 20,
            submit_expiry_seconds=60,
        ),
        offers=Offers(ProviderRegistry(settings.providers()).settings()),
    )
    await store.start()
    await identity.start()
    listener = bind("127.0.0.1", 0)
    server = HttpServer(create_app(context), listener, 2.0)
    await server.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx2.AsyncClient(base_url=address, timeout=timedelta(seconds=20).total_seconds()) as http:
            yield Edge(http, database, identity, keys)
    finally:
        await hub.stop()
        await server.stop()
        await identity.stop()
        await database.close()
