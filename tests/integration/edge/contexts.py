"""What every edge of the tests is made of, besides what a test is about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from codeagent.agent_registry.registry import AgentRegistry
from codeagent.artifacts.known import KnownArtifacts
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.budgets.registry import Budgets
from codeagent.cli.process import HttpServer, bind
from codeagent.dead_letters.letters import DeadLetters
from codeagent.edge.app import create_app
from codeagent.edge.connections import ConnectionLimits, bounded
from codeagent.edge.context import EdgeContext, EdgePolicy
from codeagent.edge.live import LiveHub
from codeagent.edge.views import RunViews
from codeagent.encryption import SecretBox, new_key_line, parse_keys
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.origins import CommandOrigins
from codeagent.eventlog.tenants import TenantLog
from codeagent.identity.api_keys import ApiKeys
from codeagent.identity.keys import KeyHasher
from codeagent.identity.tickets import StreamTickets
from codeagent.projects.git_credentials import GitCredentials
from codeagent.projects.projects import Projects
from codeagent.projects.sessions import Sessions
from codeagent.provider_registry.credentials import Credentials
from codeagent.quotas.registry import SandboxQuotas
from codeagent.webhooks.registry import Webhooks
from codeagent.webhooks.targets import TargetPolicy, Targets

NO_BROKER = "127.0.0.1:1"
KEK = new_key_line("test")


def edge_policy(**changes: Any) -> EdgePolicy:
    """The policy of an edge that keeps commands in the database."""
    usual = {
        "durable_accept": True,
        "default_model": "builtin/repair",
        "max_body_bytes": 100_000,
        "max_upload_bytes": 1 << 20,
        "submit_expiry_seconds": 60,
        "egress_hosts": ("pypi.org:443", "*.example.org:443"),
        "mcp_servers": {"docs": frozenset({"search"}), "theirs": frozenset()},
        "mcp_tenants": {"theirs": frozenset({"ten_others"})},
    }
    return EdgePolicy(**{**usual, **changes})


def edge_context(database: Database, folder: Path, **parts: Any) -> EdgeContext:
    """An edge on a database and a folder for artifacts, without a broker. `parts` are what the test says: who is let
    in (`authenticate`, `still_valid`) at least."""
    log, submissions, store = TenantLog(database), SubmissionLedger(database), LocalArtifactStore(folder)
    usual = {
        "database": database,
        "log": log,
        "submissions": submissions,
        "origins": CommandOrigins(database),
        "publisher": Publisher(KafkaConnection(NO_BROKER, "test", idempotent=False, timeout_seconds=1.0)),
        "hand_over": lambda _: None,
        "store": store,
        "known": KnownArtifacts(store),
        "hub": LiveHub(log),
        "views": RunViews(log, submissions),
        "tickets": StreamTickets(database),
        "agents": AgentRegistry.on(database),
        "webhooks": Webhooks(database, None, Targets(TargetPolicy())),
        "projects": Projects(database),
        "git_credentials": GitCredentials(database, SecretBox(parse_keys([KEK]))),
        "credentials": Credentials(database, SecretBox(parse_keys([KEK]))),
        "dead_letters": DeadLetters(database, SecretBox(parse_keys([KEK]))),
        "sessions": Sessions(database),
        "budgets": Budgets(database),
        "sandbox_quotas": SandboxQuotas(database),
        "keys": ApiKeys(database, KeyHasher(), longest_life=timedelta(days=365)),
        "supports_model": lambda model: not model.startswith("unknown/"),
        "checks": {},
        "policy": edge_policy(),
    }
    return EdgeContext(**{**usual, **parts})


@asynccontextmanager
async def listening(context: EdgeContext, drain_seconds: float = 1.0) -> AsyncIterator[tuple[str, HttpServer]]:
    """The edge behind the real server, on a free port of loopback. Streams are told when it stops."""
    listener = bind("127.0.0.1", 0)
    server = HttpServer(create_app(context), listener, drain_seconds, protocol=bounded(ConnectionLimits()))
    await server.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        await context.hub.stop()
        await server.stop()
