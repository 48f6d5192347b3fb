"""Users and tenants as rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from codeagent.clock import new_uuid
from codeagent.encryption import SecretBox
from codeagent.errors import InvalidInput, NotFound
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Change
from codeagent.identity.digests import Digests, normal_email
from codeagent.identity.scopes import Role
from codeagent.messages.identity_events import UserCreated
from codeagent.messages.ids import typed_id, user_stream
from codeagent.subjects.keys import SubjectKeys

TEMPORARY_PASSWORD_LIFETIME = timedelta(hours=72)
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,255}")
_LONGEST_EMAIL = 254


@dataclass(frozen=True, slots=True)
class User:
    """A user as shown to themself. `password_is_temporary`: nothing else may be done before another is chosen."""

    id: str
    tenant_id: str
    role: Role
    email: str | None
    created_at: datetime
    password_is_temporary: bool


def check_email(email: str, *, pointer: str = "/email") -> None:
    """Raises `InvalidInput` for what cannot be an address. Whether somebody reads it there, only a message tells."""
    if len(email) > _LONGEST_EMAIL or _EMAIL.fullmatch(normal_email(email)) is None:
        raise InvalidInput("This is not an e-mail address.", pointer=pointer)


def email_place(user_id: str) -> str:
    """Where a sealed address belongs."""
    return f"users/{user_id}/email"


async def seal_email(keys: SubjectKeys, box: SecretBox, tenant_id: str, user_id: str, email: str) -> bytes:
    """Sealed with the user's own key and with the installation's, so that either one gone is enough."""
    key = await keys.of(tenant_id, user_id)
    address = email.strip().encode()
    if key is not None and key.seals:
        address = key.seal_named(address, email_place(user_id))
    return box.seal(address, email_place(user_id))


async def open_email(keys: SubjectKeys, box: SecretBox, user_id: str, sealed: bytes | None) -> str | None:
    """None where there is none any more."""
    return (await open_emails(keys, box, {user_id: sealed}))[user_id]


async def open_emails(keys: SubjectKeys, box: SecretBox, sealed: Mapping[str, bytes | None]) -> dict[str, str | None]:
    """Addresses of users by their ids, with one look at the keys of all of them."""
    places = {user_id: email_place(user_id) for user_id in sealed}
    kept = {places[user_id]: value for user_id, value in sealed.items() if value is not None}
    opened = await keys.open_named({place: box.open(value, place) for place, value in kept.items()})
    found = {user_id: opened.get(place) for user_id, place in places.items()}
    return {user_id: None if address is None else address.decode() for user_id, address in found.items()}


async def next_version(change: Change, user_id: str) -> int:
    """Locks a user's row, and returns the version of the fact that follows. Sessions are locked before users."""
    row = await change.row("UPDATE users SET version = version + 1 WHERE id = $1 RETURNING version", user_id)
    version: int = row["version"]
    return version


@dataclass(frozen=True, slots=True)
class NewUser:
    """`password_hash` is that of a password chosen by the user, or of a temporary one."""

    tenant_id: str
    email: str
    role: Role
    password_hash: str
    temporary: bool


async def create_user(
    change: Change, new: NewUser, digests: Digests, box: SecretBox, user_id: str | None = None
) -> str:
    """Inserts a user with a password and records it; returns the id. Raises `Conflict` for an address that is known."""
    user_id = user_id or typed_id("usr", new_uuid())
    await change.rows(
        """INSERT INTO users (id, tenant_id, version, role, email_digest, email_sealed)
           VALUES ($1, $2, 1, $3, $4, $5)""",
        user_id,
        new.tenant_id,
        new.role.value,
        digests.email(new.email),
        await seal_email(change.subjects, box, new.tenant_id, user_id, new.email),
    )
    await change.rows(
        """INSERT INTO passwords (user_id, tenant_id, hash, temporary_until)
           VALUES ($1, $2, $3, CASE WHEN $4 THEN clock_timestamp() + $5::interval END)""",
        user_id,
        new.tenant_id,
        new.password_hash,
        new.temporary,
        TEMPORARY_PASSWORD_LIFETIME,
    )
    fact = UserCreated(user_id=user_id, role=new.role.value, temporary_password=new.temporary)
    await change.record(user_stream(user_id), 1, fact)
    return user_id


async def read_user(database: Database, box: SecretBox, tenant_id: str, user_id: str) -> User:
    """Raises `NotFound`."""
    rows = await database.fetch(
        """SELECT u.*, p.temporary_until IS NOT NULL AS temporary
           FROM users u LEFT JOIN passwords p ON p.user_id = u.id WHERE u.id = $1""",
        user_id,
        tenant=tenant_id,
    )
    if not rows:
        raise NotFound("There is no such user.")
    row = rows[0]
    email = await open_email(database.subjects, box, user_id, row["email_sealed"])
    return User(user_id, tenant_id, Role(row["role"]), email, row["created_at"], row["temporary"])
