"""The edge's half of the composition root."""

from __future__ import annotations

import socket

from codeagent.agent_registry.registry import AgentRegistry
from codeagent.artifacts.known import KnownArtifacts
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.broker.tail import LiveRecord, TopicTail
from codeagent.broker.topics import RUN_DELTAS, RUN_EVENTS, load_topics
from codeagent.budgets.registry import Budgets
from codeagent.cli.edge_policy import edge_policy
from codeagent.cli.edge_server import edge_server, traffic_control
from codeagent.cli.identity import Identity, identify
from codeagent.cli.parts import Parts, assemble, finish, trusted_hosts
from codeagent.cli.process import Process
from codeagent.cli.webhooks import webhooks
from codeagent.dead_letters.letters import DeadLetters
from codeagent.edge.context import EdgeContext
from codeagent.edge.live import LiveHub
from codeagent.edge.snapshots import TableSnapshots
from codeagent.edge.views import RunViews, SharedSnapshots
from codeagent.encryption import SecretBox
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.origins import CommandOrigins
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.tickets import StreamTickets
from codeagent.projects.git_credentials import GitCredentials
from codeagent.projects.projects import Projects
from codeagent.projects.sessions import Sessions
from codeagent.provider_registry.credentials import Credentials
from codeagent.providers.offers import Offers
from codeagent.providers.registry import ProviderRegistry
from codeagent.quotas.registry import SandboxQuotas
from codeagent.settings import Settings


def shared_views(settings: Settings, box: SecretBox | None, database: Database) -> SharedSnapshots:
    """In Valkey, where there is one and a key to seal with, else in the database."""
    if settings.valkey_url is None or box is None:
        return TableSnapshots(database)
    from codeagent.edge.shared_views import SharedViews  # slow to import

    return SharedViews(settings.valkey_url.get_secret_value(), box)


def edge_context(parts: Parts, identity: Identity, shared: SharedSnapshots) -> EdgeContext:
    settings = parts.settings
    registry = ProviderRegistry(settings.providers())
    tenant_log, submissions = TenantLog(parts.database), SubmissionLedger(parts.database)
    store = LocalArtifactStore(settings.artifacts_dir)
    return EdgeContext(
        database=parts.database,
        log=tenant_log,
        submissions=submissions,
        origins=CommandOrigins(parts.database),
        publisher=parts.publisher,
        hand_over=parts.outbox.answer,
        store=store,
        known=KnownArtifacts(store),
        hub=LiveHub(tenant_log),
        views=RunViews(tenant_log, submissions, shared),
        authenticate=identity.authenticate,
        still_valid=identity.still_valid,
        tickets=StreamTickets(parts.database),
        keys=identity.keys,
        agents=AgentRegistry.on(parts.database),
        budgets=Budgets(parts.database),
        sandbox_quotas=SandboxQuotas(parts.database, settings.sandbox_quota),
        users=identity.users,
        webhooks=webhooks(settings, parts.database, parts.box),
        projects=Projects(parts.database),
        git_credentials=GitCredentials(parts.database, parts.box),
        credentials=Credentials(parts.database, parts.box),
        dead_letters=DeadLetters(parts.database, parts.box),
        sessions=Sessions(parts.database),
        supports_model=registry.supports,
        checks=parts.process.checks,
        policy=edge_policy(settings, trusted_hosts(settings)),
        features=parts.features,
        topics=tuple(load_topics(settings.topics_dir)),
        traffic=traffic_control(settings),
        offers=Offers(registry.settings()),
        refuse=identity.refusals.note,
    )


async def edge_service(settings: Settings, listener: socket.socket | None = None) -> Process:
    parts = await assemble("edge", settings)
    process, settings = parts.process, parts.settings
    identity = identify(settings, parts.database, parts.box)
    process.checks["revocations"] = identity.revocations.current
    shared = shared_views(settings, parts.box, parts.database)
    context = edge_context(parts, identity, shared)
    hub, views, traffic = context.hub, context.views, context.traffic
    identity.revocations.notify(hub.recheck)

    def receive(record: LiveRecord) -> None:
        views.receive(record)
        hub.receive(record)

    def reconnected() -> None:
        views.reconnected()
        hub.reconnected()

    tail = TopicTail(parts.kafka, (RUN_EVENTS, RUN_DELTAS), receive=receive, reconnected=reconnected)
    server = edge_server(settings, context, listener)
    process.start += [context.store.start, identity.start, hub.start, tail.start, traffic.start, server.start]
    # Streams are told to come back elsewhere before the server stops accepting.
    process.stop += [
        hub.stop,
        server.stop,
        traffic.stop,
        context.submissions.close,
        context.origins.close,
        identity.stop,
        tail.stop,
    ]
    process.stop.append(shared.stop)
    return finish(parts)
