"""Tenants, as operators make, look at and suspend them: from the terminal, under the services' role, and over HTTP,
under the edge's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

from codeagent import clock
from codeagent.encryption import SecretBox
from codeagent.errors import Conflict, NotFound
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.identity.digests import DigestSource
from codeagent.identity.passwords import Passwords, check_password, temporary_password
from codeagent.identity.revocations import Kind, lift_tenant, revoke
from codeagent.identity.scopes import Role
from codeagent.identity.sessions import SessionPolicy
from codeagent.identity.users import NewUser, check_email, create_user
from codeagent.messages.envelope import Event
from codeagent.messages.identity_events import TenantCreated, TenantResumed, TenantSuspended
from codeagent.messages.ids import tenant_stream


@dataclass(frozen=True, slots=True)
class FirstTenant:
    """`password` None asks for a temporary one, which is then shown once."""

    id: str
    name: str
    email: str
    password: str | None = None


@dataclass(frozen=True, slots=True)
class FirstOwner:
    user_id: str
    temporary_password: str | None


@dataclass(frozen=True, slots=True)
class Tenant:
    """`suspended_at` None: it is not."""

    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None


def _operating(database: Database, tenant_id: str, author: Author | None = None) -> AbstractAsyncContextManager[Change]:
    return ControlPlane(database).change(author or Author(tenant_id, "system", "operator", clock.new_uuid()))


async def bootstrap(database: Database, box: SecretBox, passwords: Passwords, first: FirstTenant) -> FirstOwner:
    """Makes the first tenant and its owner. Raises `Conflict` where there is a tenant, `InvalidInput`."""
    check_email(first.email)
    if first.password is not None:
        check_password(first.password, first.email, pointer="/password")
    password = first.password or temporary_password()
    hashed = await passwords.hash(password)
    digests = await DigestSource(database, box).get()
    async with _operating(database, first.id) as change:
        await change.rows("LOCK TABLE tenants IN SHARE ROW EXCLUSIVE MODE")
        if await change.rows("SELECT FROM tenants LIMIT 1"):
            raise Conflict("There is a tenant already.")
        await change.rows("INSERT INTO tenants (id, version, name) VALUES ($1, 1, $2)", first.id, first.name)
        await change.record(tenant_stream(first.id), 1, TenantCreated(tenant_id=first.id, name=first.name))
        new = NewUser(first.id, first.email, Role.OWNER, hashed, temporary=first.password is None)
        user_id = await create_user(change, new, digests, box)
    return FirstOwner(user_id, None if first.password is not None else password)


async def suspend_tenant(
    database: Database, tenant_id: str, policy: SessionPolicy, author: Author | None = None
) -> None:
    """Refuses logins and refreshes from now on, and the tokens that are out there within a second.

    Raises `NotFound` for no such tenant, or one that is suspended already.
    """
    async with _operating(database, tenant_id, author) as change:
        await _mark(change, tenant_id, TenantSuspended(tenant_id=tenant_id), suspended=True)
        await revoke(change, Kind.TENANT, tenant_id, clock.now() + policy.access + timedelta(minutes=1))


async def resume_tenant(database: Database, tenant_id: str, author: Author | None = None) -> None:
    """Every credential that has not ended meanwhile is good again, on every edge within a second.

    Raises `NotFound` for no such tenant, or one that is not suspended.
    """
    async with _operating(database, tenant_id, author) as change:
        await _mark(change, tenant_id, TenantResumed(tenant_id=tenant_id), suspended=False)
        await lift_tenant(change)


async def _mark(change: Change, tenant_id: str, fact: Event, *, suspended: bool) -> None:
    rows = await change.rows(
        """UPDATE tenants SET version = version + 1, suspended_at = CASE WHEN $2 THEN clock_timestamp() END
           WHERE id = $1 AND (suspended_at IS NULL) = $2 RETURNING version""",
        tenant_id,
        suspended,
    )
    if not rows:
        raise NotFound(f"There is no tenant {tenant_id} that is {'not ' if suspended else ''}suspended.")
    await change.record(tenant_stream(tenant_id), rows[0]["version"], fact)


async def list_tenants(database: Database, after: str | None, limit: int) -> tuple[Sequence[Tenant], str | None]:
    """All of them, in the order of their ids, and the id that the next page continues after."""
    rows = await database.fetch("SELECT * FROM list_tenants_v1($1, $2)", after or "", limit + 1)
    found = [Tenant(row["id"], row["name"], row["created_at"], row["suspended_at"]) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


async def find_tenant(database: Database, tenant_id: str) -> Tenant:
    """Raises `NotFound`."""
    rows = await database.fetch(
        "SELECT id, name, created_at, suspended_at FROM tenants WHERE id = $1", tenant_id, tenant=tenant_id
    )
    if not rows:
        raise NotFound("There is no such tenant.")
    return Tenant(**dict(rows[0]))
