"""Edges as they are composed, each with a database of its own, serving real HTTP; without a broker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from codeagent import clock
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.cli.identity import Identity, identify, secret_box
from codeagent.cli.webhooks import webhooks
from codeagent.edge.traffic.control import TrafficControl
from codeagent.edge.traffic.policy import TrafficPolicy
from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.keys import digest_of_key, new_key
from codeagent.identity.scopes import SCOPES_OF, Role, Scope
from codeagent.providers.offers import Offers
from codeagent.providers.registry import ProviderRegistry
from codeagent.settings import Settings, read_settings
from tests.integration.edge.contexts import KEK, NO_BROKER, edge_context, edge_policy, listening
from tests.services.deaf import DeafDatabase

MINE, OTHERS = "ten_mine", "ten_others"


@dataclass(frozen=True)
class Keys:
    """Keys of the file: an owner of each tenant, a developer, one who may do nothing, an operator."""

    owner: str
    developer: str
    stranger: str
    powerless: str
    operator: str

    @classmethod
    def written_to(cls, path: Path) -> Keys:
        keys = cls(*(new_key() for _ in range(5)))
        entries = [
            (keys.owner, MINE, "usr_owner", SCOPES_OF[Role.OWNER]),
            (keys.developer, MINE, "usr_developer", SCOPES_OF[Role.DEVELOPER]),
            (keys.stranger, OTHERS, "usr_stranger", SCOPES_OF[Role.OWNER]),
            (keys.powerless, MINE, "usr_powerless", frozenset()),
            (keys.operator, "ten_operators", "usr_operator", frozenset({Scope.OPERATOR, Scope.AUDIT_READ})),
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

    async def make_webhook(self, maker: str, **body: Any) -> dict[str, Any]:
        """A webhook made over HTTP; `secret` is what its messages are signed with."""
        wanted = {"url": "http://127.0.0.1:9/hook", "event_types": ["*"], **body}
        headers = {"Idempotency-Key": str(clock.new_uuid())}
        made = await self.call(maker, "POST", "/v1/webhooks", json=wanted, headers=headers)
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
    return read_settings(**{**where, "kek": KEK, "webhook_loopback": True, **more})


@asynccontextmanager
async def running_edge(
    database_url: str,
    folder: Path,
    keys: Keys,
    *,
    deaf: bool = False,
    traffic: TrafficPolicy | None = None,
    **more: Any,
) -> AsyncIterator[Edge]:
    """`deaf`: notifications do not reach it. Commands go to the broker where `kafka_bootstrap_servers` names one."""
    settings = settings_of(database_url, folder, **more)
    database = (DeafWatched if deaf else Watched)(database_url, connections=4, role=EDGE_ROLE)
    database.queries = []
    identity = identify(settings, database, secret_box(settings))
    broker = settings.kafka_bootstrap_servers
    publisher = Publisher(KafkaConnection(broker, "test", idempotent=False, timeout_seconds=1.0))
    context = edge_context(
        database,
        folder / "artifacts",
        authenticate=identity.authenticate,
        still_valid=identity.still_valid,
        keys=identity.keys,
        users=identity.users,
        webhooks=webhooks(settings, database, secret_box(settings)),
        refuse=identity.refusals.note,
        checks={"revocations": identity.revocations.current},
        policy=edge_policy(
            durable_accept=broker == NO_BROKER,
            trusted_proxies=tuple(str(network) for network in settings.trusted_proxies),
            security_contact=settings.security_contact,
        ),
        publisher=publisher,
        traffic=TrafficControl(traffic),
        offers=Offers(ProviderRegistry(settings.providers()).settings()),
    )
    identity.revocations.notify(context.hub.recheck)
    await context.store.start()
    if broker != NO_BROKER:
        await publisher.start()
    await identity.start()
    try:
        async with (
            listening(context, 2.0) as (url, _),
            httpx2.AsyncClient(base_url=url, timeout=20.0, trust_env=False) as http,
        ):
            yield Edge(http, database, identity, keys)
    finally:
        await publisher.stop()
        await identity.stop()
        await database.close()
