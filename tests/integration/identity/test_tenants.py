"""Tenants as operators make and suspend them, and the wall between tenants in the tables of identity."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from codeagent import clock
from codeagent.errors import Conflict, InvalidInput, NotFound
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.api_keys import ApiKeys, KeyOrder
from codeagent.identity.key_lookup import DatabaseKeys
from codeagent.identity.keys import KeyHasher
from codeagent.identity.principal import Principal
from codeagent.identity.revocations import Revocations
from codeagent.identity.scopes import Scope
from codeagent.identity.sessions import SessionPolicy
from codeagent.identity.tenants import FirstTenant, bootstrap, resume_tenant, suspend_tenant
from tests.integration.identity.conftest import BOX, EMAIL, TENANT, World, cheap_passwords
from tests.integration.identity.test_revocations import WITHIN_SECONDS, until
from tests.services.deaf import DeafDatabase

TABLES = ("tenants", "users", "passwords", "login_sessions", "refresh_tokens", "authorization_codes")


async def test_there_is_one_first_tenant_however_many_ask_for_it_at_once(newest_database_url: str) -> None:
    database, passwords = Database(newest_database_url, connections=4), cheap_passwords()
    wanted = [FirstTenant(f"ten_{number}", "N", f"o{number}@example.org") for number in range(4)]
    ends = await asyncio.gather(
        *(bootstrap(database, BOX, passwords, first) for first in wanted), return_exceptions=True
    )
    [owner] = [end for end in ends if not isinstance(end, BaseException)]
    assert {type(end) for end in ends if isinstance(end, BaseException)} == {Conflict}
    assert owner.temporary_password is not None
    assert len(owner.temporary_password) >= 20
    [row] = await database.fetch("SELECT (SELECT count(*) FROM tenants) + (SELECT count(*) FROM users) AS rows")
    assert row["rows"] == 2
    for email, password in (("nobody", None), ("a b@example.org", None), ("a@example.org", "password1234")):
        with pytest.raises(InvalidInput):
            await bootstrap(database, BOX, passwords, FirstTenant("ten_x", "N", email, password))
    await passwords.close()
    await database.close()


async def test_a_suspended_tenant_is_out_within_a_moment_and_in_again_when_it_is_resumed(world: World) -> None:
    client = await world.owner()
    await suspend_tenant(world.database, TENANT, SessionPolicy())
    await world.edge.revocations.look()
    assert (await client.get("/v1/me")).status_code == 401
    assert (await client.renew()).json()["error"] == "invalid_grant"
    with pytest.raises(NotFound):
        await suspend_tenant(world.database, TENANT, SessionPolicy())
    await resume_tenant(world.database, TENANT)
    assert (await client.renew()).status_code == 200
    with pytest.raises(NotFound):
        await resume_tenant(world.database, "ten_none")
    facts = [event.type for event in await world.facts(f"tenant-{TENANT}")]
    assert facts == ["tenant.created", "tenant.suspended", "tenant.resumed"]


@pytest.mark.parametrize("deaf", [False, True], ids=["told", "has to look"])
async def test_a_tenant_that_is_resumed_at_once_goes_on_where_it_was_on_every_edge(world: World, deaf: bool) -> None:
    """What was revoked by itself stays so."""
    client, logged_out = await world.owner(), await world.owner("console")
    assert (await logged_out.call("POST", "/oauth2/logout")).status_code == 204
    other = (DeafDatabase if deaf else Database)(world.url, connections=2, role=EDGE_ROLE)
    there = Revocations(other)
    principal = Principal(TENANT, world.user_id, "ses_1", token_id="jti_1")
    await there.start()
    taken = []
    # The best of three: a busy machine may stop any process for longer than this.
    for _ in range(3):
        await suspend_tenant(world.database, TENANT, SessionPolicy())
        await until(lambda: there.revoked(principal))
        await world.edge.revocations.look()
        assert (await client.get("/v1/me")).status_code == 401
        await resume_tenant(world.database, TENANT)
        taken.append(await until(lambda: not there.revoked(principal)))
    assert min(taken) < WITHIN_SECONDS
    # An edge that has just started reads what still stands there.
    fresh = Revocations(other)
    await fresh.look()
    assert not fresh.revoked(principal)
    await world.edge.revocations.look()
    assert (await client.get("/v1/me")).status_code == 200
    assert (await logged_out.get("/v1/me")).status_code == 401
    await there.stop()
    await other.close()


async def test_a_suspended_tenants_api_keys_are_refused_until_it_is_resumed(world: World) -> None:
    walled = Database(world.url, connections=2, role=EDGE_ROLE)
    keys = ApiKeys(walled, KeyHasher(), longest_life=timedelta(days=365))
    order = KeyOrder("key_1", world.user_id, "test", frozenset({Scope.RUNS_READ}), (), clock.now() + timedelta(days=1))
    secret = (await keys.create(Author(TENANT, "system", "test", clock.new_uuid()), order)).secret
    assert secret is not None

    async def accepted() -> bool:
        # Anew each time: what an edge remembers is refused by the tenant's revocation.
        return await DatabaseKeys(walled, KeyHasher(), lambda _: None).authenticate(secret) is not None

    assert await accepted()
    await suspend_tenant(world.database, TENANT, SessionPolicy())
    assert not await accepted()
    await resume_tenant(world.database, TENANT)
    assert await accepted()
    await walled.close()


async def test_the_wall_stands_in_every_table_of_a_tenant(world: World) -> None:
    await world.owner()
    walled = Database(world.url, connections=1, role=EDGE_ROLE)
    for table in TABLES:
        counts = [
            (await walled.fetch(f"SELECT count(*) FROM {table}", tenant=tenant))[0][0]
            for tenant in (TENANT, "ten_other", "")
        ]
        assert counts == [1, 0, 0], table
    for statement in (
        "UPDATE tenants SET name = 'mine'",
        "DELETE FROM users",
        "SELECT * FROM login_throttles",
        "SELECT * FROM instance_secrets",
        "UPDATE signing_keys SET active_from = now()",
        "INSERT INTO users (id, tenant_id, version, role) VALUES ('usr_x', 'ten_other', 1, 'owner')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await walled.fetch(statement, tenant=TENANT)
    await walled.close()


async def test_an_address_belongs_to_one_user_however_it_is_written(world: World) -> None:
    [row] = await world.database.fetch("SELECT email_digest, email_sealed FROM users")
    assert EMAIL.encode() not in row["email_sealed"]
    with pytest.raises(Conflict):
        await world.sql(
            "INSERT INTO users (id, tenant_id, version, role, email_digest, email_sealed) "
            "VALUES ('usr_2', $1, 1, 'viewer', $2, $3)",
            TENANT,
            row["email_digest"],
            row["email_sealed"],
        )
