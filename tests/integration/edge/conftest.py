"""The edge as an application, on a real database, a real artifact store and a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from codeagent.agent_registry.registry import AgentRegistry
from codeagent.artifacts.known import KnownArtifacts
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.broker.admin import TopicAdmin, wanted_topics
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import load_topics
from codeagent.edge.app import create_app
from codeagent.edge.context import EdgeContext, EdgePolicy
from codeagent.edge.live import LiveHub
from codeagent.edge.traffic.control import TrafficControl
from codeagent.edge.traffic.policy import TrafficPolicy
from codeagent.edge.views import RunViews
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from codeagent.flags.evaluation import Features
from codeagent.identity.api_keys import ApiKeys
from codeagent.identity.keys import KeyHasher, KeyRing, digest_of_key, new_key
from codeagent.identity.principal import Principal
from codeagent.identity.tickets import StreamTickets
from codeagent.settings import Settings
from tests.integration.edge.gateway import Edge, Keys, running_edge
from tests.integration.edge.served import ServedEdge, served_edge

MAX_BODY = 100_000
TOPICS = load_topics(Settings.model_fields["topics_dir"].default)


@dataclass
class Api:
    """A client of the application with one tenant's key, and what stands behind it: `walled` is the edge's own
    database, `database` sees what a worker would."""

    http: httpx2.AsyncClient
    stranger: httpx2.AsyncClient
    database: Database
    walled: Database
    publisher: Publisher
    context: EdgeContext
    traffic: TrafficControl
    handed_over: list[OutboxRow] = field(default_factory=list)
    app: FastAPI = field(default_factory=FastAPI)
    key: str = ""

    def limit(self, **changes: float) -> None:
        """Changes times and numbers of the traffic policy from now on."""
        self.traffic.policy = replace(self.traffic.policy, **changes)  # type: ignore[arg-type]

    async def submit(self, body: object, key: str | None = "k1") -> httpx2.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.http.post("/v1/runs", json=body, headers=headers)


def context(
    database: Database,
    publisher: Publisher,
    keys: KeyRing,
    api: Api,
    folder: Path,
    policy: EdgePolicy,
    features: Features,
) -> EdgeContext:
    async def authenticate(key: str) -> Principal | None:
        return keys.authenticate(key)

    log, submissions, store = TenantLog(database), SubmissionLedger(database), LocalArtifactStore(folder)
    return EdgeContext(
        database=database,
        log=log,
        submissions=submissions,
        publisher=publisher,
        hand_over=api.handed_over.append,
        store=store,
        known=KnownArtifacts(store),
        hub=LiveHub(log),
        views=RunViews(log, submissions),
        authenticate=authenticate,
        still_valid=keys.knows,
        tickets=StreamTickets(database),
        keys=ApiKeys(database, KeyHasher(), longest_life=timedelta(days=365)),
        agents=AgentRegistry.on(database),
        supports_model=lambda model: model in {"builtin/repair", "test/model"},
        checks={},
        policy=policy,
        features=features,
        topics=tuple(TOPICS),
        traffic=api.traffic,
    )


_made: set[str] = set()


async def make_topics(connection: KafkaConnection) -> None:
    """Once for each broker of the session."""
    if connection.bootstrap_servers not in _made:
        admin = TopicAdmin(connection, replication=1, configurable=False)
        await admin.apply(wanted_topics(TOPICS, "dev"))
        _made.add(connection.bootstrap_servers)


@pytest.fixture
def traffic_policy() -> TrafficPolicy:
    """For modules to override."""
    return TrafficPolicy()


@pytest.fixture
def edge_policy(durable: bool) -> EdgePolicy:
    """For modules to override."""
    return EdgePolicy(
        durable_accept=durable,
        default_model="builtin/repair",
        max_body_bytes=MAX_BODY,
        max_upload_bytes=1 << 20,
        submit_expiry_seconds=60,
    )


@pytest.fixture
def features() -> Features:
    """Every feature has its default, unless a test says otherwise."""
    return Features()


@pytest.fixture(params=[True, False], ids=["durable", "broker"])
def durable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def api(
    newest_database_url: str,
    embedded_broker: EmbeddedBroker,
    tmp_path: Path,
    edge_policy: EdgePolicy,
    traffic_policy: TrafficPolicy,
    features: Features,
) -> AsyncIterator[Api]:
    database, walled = Database(newest_database_url), Database(newest_database_url, role=EDGE_ROLE)
    connection = KafkaConnection(embedded_broker.bootstrap_servers, "test", idempotent=False, timeout_seconds=2.0)
    await make_topics(connection)
    publisher = Publisher(connection)
    await publisher.start()
    mine, theirs = new_key(), new_key()
    keys = KeyRing(
        {
            digest_of_key(mine): Principal("ten_mine", "usr_mine", "key_mine"),
            digest_of_key(theirs): Principal("ten_theirs", "usr_theirs", "key_theirs"),
        }
    )
    traffic = TrafficControl(traffic_policy)
    made = Api(None, None, database, walled, publisher, None, traffic)  # type: ignore[arg-type]  # the rest follows
    made.context = context(walled, publisher, keys, made, tmp_path / "artifacts", edge_policy, features)
    made.app, made.key = create_app(made.context), mine
    transport = httpx2.ASGITransport(app=made.app, raise_app_exceptions=False)
    made.http = httpx2.AsyncClient(transport=transport, base_url="http://edge", headers={"X-API-Key": mine})
    made.stranger = httpx2.AsyncClient(transport=transport, base_url="http://edge", headers={"X-API-Key": theirs})
    await traffic.start()
    yield made
    await traffic.stop()
    await made.http.aclose()
    await made.stranger.aclose()
    await publisher.stop()
    await walled.close()
    await database.close()


@pytest.fixture
def file_keys(tmp_path: Path) -> Keys:
    return Keys.written_to(tmp_path / "api-keys.json")


@pytest.fixture
async def edge(newest_database_url: str, tmp_path: Path, file_keys: Keys) -> AsyncIterator[Edge]:
    """One edge on real HTTP, without a broker."""
    async with running_edge(newest_database_url, tmp_path, file_keys) as running:
        yield running


@pytest.fixture
async def served(module_database_url: str) -> AsyncIterator[ServedEdge]:
    async with served_edge(module_database_url) as running:
        yield running


@pytest.fixture
async def other_edge(module_database_url: str) -> AsyncIterator[ServedEdge]:
    async with served_edge(module_database_url) as running:
        yield running


@pytest.fixture
async def writer(module_database_url: str) -> AsyncIterator[Database]:
    """The database of `edge` as a worker has it."""
    opened = Database(module_database_url)
    yield opened
    await opened.close()
