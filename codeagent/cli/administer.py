"""What operators do with tenants and signing keys from the terminal."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from codeagent.cli.databases import command_database
from codeagent.cli.identity import rotation, secret_box
from codeagent.cli.operate import guarded, load_settings, say
from codeagent.cli.secrets import open_secrets, resolved
from codeagent.clock import new_uuid
from codeagent.encryption import SecretBox
from codeagent.errors import Rejected
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.passwords import Passwords
from codeagent.identity.sessions import SessionPolicy
from codeagent.identity.signing import SigningKeys
from codeagent.identity.tenants import FirstTenant, bootstrap, resume_tenant, suspend_tenant
from codeagent.messages.ids import typed_id
from codeagent.settings import Settings


@dataclass(frozen=True, slots=True)
class BootstrapOrder:
    """As typed. Without a `tenant_id` there will be a new one; without a `password` a temporary one."""

    email: str
    name: str
    tenant_id: str | None
    password: str | None


@asynccontextmanager
async def opened(data_dir: Path | None, role: str = SERVICE_ROLE) -> AsyncIterator[tuple[Database, Settings]]:
    """The database, and the settings with their secrets in place of references."""
    settings = load_settings(data_dir)
    secrets = await open_secrets("edge", settings)
    await secrets.stop()
    async with command_database(settings, connections=2, role=role) as database:
        yield database, resolved(settings, secrets)


def box_of(settings: Settings) -> SecretBox:
    box = secret_box(settings)
    if box is None:
        raise Rejected("CODEAGENT_KEK is not set: secrets could not be sealed")
    return box


def bootstrap_installation(data_dir: Path | None, order: BootstrapOrder) -> int:
    async def make() -> int:
        first = FirstTenant(order.tenant_id or typed_id("ten", new_uuid()), order.name, order.email, order.password)
        passwords = Passwords()
        try:
            async with opened(data_dir) as (database, settings):
                owner = await bootstrap(database, box_of(settings), passwords, first)
        finally:
            await passwords.close()
        say(f"tenant {first.id}")
        say(f"owner {owner.user_id}")
        if owner.temporary_password is not None:
            say(f"password {owner.temporary_password}")
            sys.stderr.write("It is shown this once, holds for three days, and has to be changed at the first login.\n")
        return 0

    return guarded(make())


def change_tenant(data_dir: Path | None, tenant_id: str, *, suspended: bool) -> int:
    async def change() -> int:
        async with opened(data_dir) as (database, _):
            if suspended:
                await suspend_tenant(database, tenant_id, SessionPolicy())
            else:
                await resume_tenant(database, tenant_id)
        say(f"{tenant_id} is {'suspended' if suspended else 'resumed'}")
        return 0

    return guarded(change())


def rotate_keys(data_dir: Path | None, *, revoke: bool) -> int:
    async def rotate() -> int:
        async with opened(data_dir, EDGE_ROLE) as (database, settings):
            keys = SigningKeys(database, box_of(settings), rotation(settings))
            done = await (keys.replace_all() if revoke else keys.publish_successor())
        say(f"a new key signs from {done.publish:%Y-%m-%d %H:%M:%S} UTC on")
        say(f"{len(done.remove)} keys removed")
        return 0

    return guarded(rotate())
