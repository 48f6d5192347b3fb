"""The edge's way in for users, on a real database: no broker is needed to log in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from codeagent import clock
from codeagent.edge.app import create_app
from codeagent.encryption import SecretBox
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.authenticator import Authenticator
from codeagent.identity.keys import KeyRing, digest_of_key, new_key
from codeagent.identity.passwords import Passwords
from codeagent.identity.principal import Principal
from codeagent.identity.refusals import Refusal
from codeagent.identity.revocations import Revocations
from codeagent.identity.scopes import Role
from codeagent.identity.tenants import FirstTenant, bootstrap
from codeagent.identity.user_access import UserAccess, UserPolicy
from codeagent.identity.users import NewUser, create_user
from codeagent.webhooks.registry import Webhooks
from codeagent.webhooks.targets import TargetPolicy, Targets
from tests.integration.edge.contexts import edge_context, edge_policy
from tests.integration.identity.oauth_client import OAuthClient

ISSUER = "https://agents.example.org"
EMAIL = "Ada.Lovelace@Example.org"
COLLEAGUE = "charles@example.org"
PASSWORD = "difference engine no. 2"
TENANT = "ten_first"
OWNER_ADDRESS, STRANGER_ADDRESS = "198.51.100.7", "203.0.113.9"
BOX = SecretBox({"k1": os.urandom(32)})


def cheap_passwords() -> Passwords:
    """Real argon2id, with parameters that cost nothing."""
    return Passwords(time_cost=1, memory_kib=8, parallelism=1)


@dataclass
class Edge:
    """One edge: its application, what it knows of users and revocations, and whom it has refused from where."""

    app: object
    users: UserAccess
    revocations: Revocations
    refused: list[tuple[Refusal, str | None]]

    def http(self, address: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False, client=(address, 4711))
        return httpx2.AsyncClient(transport=transport, base_url=ISSUER)

    def client(self, client_id: str = "cli", address: str = OWNER_ADDRESS) -> OAuthClient:
        return OAuthClient(self.http(address), client_id)


@dataclass
class World:
    """An installation with one owner. `database` sees everything; `api_key` is one of the owner's tenant."""

    edge: Edge
    database: Database
    url: str
    user_id: str
    api_key: str
    folder: Path

    def client(self, client_id: str = "cli", address: str = OWNER_ADDRESS) -> OAuthClient:
        return self.edge.client(client_id, address)

    async def owner(self, client_id: str = "cli", address: str = OWNER_ADDRESS) -> OAuthClient:
        """The owner, logged in."""
        client = self.client(client_id, address)
        (await client.log_in(EMAIL, PASSWORD)).raise_for_status()
        return client

    async def colleague(self, role: Role = Role.VIEWER) -> OAuthClient:
        """Another user of the tenant, logged in."""
        passwords, digests = cheap_passwords(), await self.edge.users.digests.get()
        control = ControlPlane(self.edge.users.keys._database)
        async with control.change(Author(TENANT, "system", "test", clock.new_uuid())) as change:
            new = NewUser(TENANT, COLLEAGUE, role, await passwords.hash(PASSWORD), temporary=False)
            await create_user(change, new, digests, BOX)
        await passwords.close()
        client = self.client()
        (await client.log_in(COLLEAGUE, PASSWORD)).raise_for_status()
        return client

    async def facts(self, stream_id: str) -> list[StoredEvent]:
        return list(await EventLog(self.database).read_stream(stream_id))

    async def user_facts(self) -> list[str]:
        """What happened to the owner, by name."""
        return [event.type for event in await self.facts(f"user-{self.user_id}")]

    async def sql(self, statement: str, *arguments: object) -> None:
        await self.database.write(statement, *arguments)


def make_edge(
    walled: Database, keys: KeyRing, folder: Path, policy: UserPolicy | None = None, box: SecretBox = BOX
) -> Edge:
    refused: list[tuple[Refusal, str | None]] = []

    def noted(refusal: Refusal, address: str | None) -> None:
        refused.append((refusal, address))

    users = UserAccess(walled, box, cheap_passwords(), policy or UserPolicy(ISSUER), refuse=noted)
    revocations = Revocations(walled, look_seconds=0.1)

    async def known(key: str) -> Principal | None:
        return keys.authenticate(key)

    context = edge_context(
        walled,
        folder,
        authenticate=Authenticator(known, [users.tokens.authenticate], revocations),
        still_valid=lambda caller: not revocations.revoked(caller),
        policy=edge_policy(public_url=ISSUER),
        users=users,
        webhooks=Webhooks(walled, box, Targets(TargetPolicy(loopback=True))),
    )
    return Edge(create_app(context), users, revocations, refused)


@pytest.fixture
async def world(newest_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    database = Database(newest_database_url, connections=4)
    walled = Database(newest_database_url, connections=8, role=EDGE_ROLE)
    passwords = cheap_passwords()
    owner = await bootstrap(database, BOX, passwords, FirstTenant(TENANT, "First", EMAIL, PASSWORD))
    key = new_key()
    keys = KeyRing({digest_of_key(key): Principal(TENANT, owner.user_id, "key_1")})
    edge = make_edge(walled, keys, tmp_path)
    await edge.users.keys.refresh()
    await edge.revocations.start()
    yield World(edge, database, newest_database_url, owner.user_id, key, tmp_path)
    await edge.revocations.stop()
    await edge.users.passwords.close()
    await passwords.close()
    await walled.close()
    await database.close()


def now_seconds() -> int:
    return int(clock.now().timestamp())
