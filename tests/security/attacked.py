"""The edge that is attacked: composed as any other, with a real database and a real broker, an owner who logs in, and
no limit of rate in the way of the attacks."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
import socket
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from codeagent import clock
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.dead_letters import read_failed
from codeagent.dead_letters.keeping import keep
from codeagent.edge.traffic.policy import Rate, RateClass, TrafficPolicy
from codeagent.encryption import SecretBox, parse_keys
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.identity.passwords import Passwords
from codeagent.identity.tenants import FirstTenant, bootstrap
from codeagent.identity.throttle import ThrottlePolicy
from codeagent.identity.user_access import UserPolicy
from codeagent.messages.identity_events import TenantCreated
from codeagent.messages.ids import tenant_stream, typed_id
from codeagent.transparency.sealer import Sealer
from codeagent.webhooks.registry import Webhooks
from tests.integration.dead_letters.records import ORIGIN, dead_letter
from tests.integration.edge.auditing import catch_up
from tests.integration.edge.conftest import make_topics
from tests.integration.edge.gateway import KEK, MINE, NO_BROKER, Edge, Keys, running_edge
from tests.integration.eventlog.steps import commit_step, failed, new_run, started, step, submitted, waiting
from tests.integration.transparency.sealed import KEYS, seal_all

EMAIL, PASSWORD = "ada@example.org", "difference engine no. 2"
PROVIDER = "acme"
"""A configured provider of models, which nobody calls."""
NEIGHBOUR = "ten_neighbour"
"""Another tenant, which operators may suspend without ending the attack."""
OFTEN = 10**9
UNLIMITED = TrafficPolicy(
    rates=dict.fromkeys(RateClass, Rate(OFTEN, 60)),
    anonymous=Rate(OFTEN, 60),
    in_flight=OFTEN,
    tenant_in_flight=OFTEN,
    loop_lag_seconds=float(OFTEN),
)
UNTHROTTLED = ThrottlePolicy(account_failures=OFTEN, address_failures=OFTEN)
cheap_passwords = functools.partial(Passwords, time_cost=1, memory_kib=8, parallelism=1)
"""Real argon2id, with parameters that cost nothing."""


def pkce() -> tuple[str, str]:
    """A verifier and its challenge."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    return verifier, urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass
class Target:
    """What an attacker with a full-scope token and an operator's key has: an address and a way to log in. Its calls
    block."""

    url: str
    edge: Edge
    runs: list[str] = field(default_factory=list)
    """Runs of the owner's tenant that have begun."""
    ended: str = ""
    """One that has ended."""
    letters: list[str] = field(default_factory=list)
    """Dead letters that nobody has seen to."""
    certified: str = ""
    """A request of somebody who is erased."""
    password: str = PASSWORD
    """The owner's at this moment."""

    def http(self, token: str | None = None) -> httpx2.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20.0, trust_env=False)

    def client(self, token: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20.0, trust_env=False)

    def log_in(self) -> str:
        """An access token that the owner's password has got."""
        verifier, challenge = pkce()
        who = {"client_id": "cli", "email": EMAIL, "password": self.password, "code_challenge": challenge}
        with self.http() as http:
            code = http.post("/oauth2/authorize", json=who).raise_for_status().json()["code"]
            form = {"grant_type": "authorization_code", "client_id": "cli", "code": code, "code_verifier": verifier}
            return str(http.post("/oauth2/token", data=form).raise_for_status().json()["access_token"])


_look_up = socket.getaddrinfo


def _known_names(host: object, *arguments: object, **named: object) -> object:
    """Addresses alone: names that attacks make up are asked of no server."""
    if isinstance(host, str) and not host.replace(".", "").isdigit() and ":" not in host:
        raise socket.gaierror(socket.EAI_NONAME, "a made-up name")
    return _look_up(host, *arguments, **named)  # type: ignore[arg-type]


async def _make_neighbour(everything: Database) -> None:
    async with ControlPlane(everything).change(Author(NEIGHBOUR, "system", "test", clock.new_uuid())) as change:
        await change.rows("INSERT INTO tenants (id, version, name) VALUES ($1, 1, 'Neighbour')", NEIGHBOUR)
        await change.record(tenant_stream(NEIGHBOUR), 1, TenantCreated(tenant_id=NEIGHBOUR, name="Neighbour"))


async def _make_certified(everything: Database) -> str:
    request_id, subject = typed_id("prv", clock.new_uuid()), typed_id("usr", clock.new_uuid())
    await everything.write(
        """INSERT INTO privacy_requests (id, tenant_id, version, kind, subject_id, note, status, fingerprint, created_by,
                                         created_at, due_at)
           VALUES ($1, $2, 1, 'erasure', $3, '', 'in_progress', '', 'usr_1', now(), now() + interval '1 month')""",
        request_id,
        MINE,
        subject,
    )
    await everything.write(
        """INSERT INTO erasures (id, tenant_id, subject_id, closed_at, completed_at, certificate)
           VALUES ($1, $2, $3, now(), now(), 'codeagent.io/erasure/v1')""",
        request_id,
        MINE,
        subject,
    )
    return request_id


@asynccontextmanager
async def attacked_edge(
    database_url: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    broker: str = NO_BROKER,
    runs: int = 0,
    traffic: TrafficPolicy = UNLIMITED,
) -> AsyncIterator[Target]:
    """An edge whose tenant has an owner with a password, so many runs and as many dead letters, and an audit of all that.
    There is a neighbour."""
    monkeypatch.setattr("codeagent.cli.identity.Passwords", cheap_passwords)
    monkeypatch.setattr("codeagent.cli.identity.UserPolicy", functools.partial(UserPolicy, throttle=UNTHROTTLED))
    monkeypatch.setitem(Webhooks.__init__.__kwdefaults__, "most", OFTEN)
    monkeypatch.setattr(socket, "getaddrinfo", _known_names)
    everything, passwords = Database(database_url, connections=1), cheap_passwords()
    box = SecretBox(parse_keys(KEK.splitlines()))
    await bootstrap(everything, box, passwords, FirstTenant(MINE, "Mine", EMAIL, PASSWORD))
    await _make_neighbour(everything)
    begun, ended = [new_run() for _ in range(runs)], new_run()
    await commit_step(everything, step(ended, 0, [submitted(ended), failed()], tenant=MINE))
    for run_id in begun:
        await commit_step(everything, step(run_id, 0, [started(), waiting()], tenant=MINE))
    dead = [read_failed(dead_letter(offset=number), ORIGIN) for number in range(runs)]
    letters = [str(await keep(everything, box, each)) for each in dead]
    certified = await _make_certified(everything)
    await passwords.close()
    await seal_all(everything, Sealer(everything, KEYS))
    await everything.close()
    await catch_up(database_url)
    if broker != NO_BROKER:
        await make_topics(KafkaConnection(broker, "test", idempotent=False))
    keys, providers = Keys.written_to(folder / "api-keys.json"), folder / "providers.json"
    providers.write_text(json.dumps([{"name": PROVIDER, "kind": "openai"}]))
    where = {
        "kafka_bootstrap_servers": broker,
        "security_contact": "mailto:security@example.com",
        "providers_file": providers,
    }
    async with running_edge(database_url, folder, keys, traffic=traffic, **where) as edge:
        yield Target(str(edge.http.base_url).rstrip("/"), edge, begun, ended, letters, certified)
