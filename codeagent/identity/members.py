"""The users of a tenant, as those see them who may add and remove them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from codeagent.cursors import page_of, parse_id_cursor
from codeagent.encryption import SecretBox
from codeagent.errors import Conflict, InvalidInput, NotFound, Rejected
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.identity.api_keys import revoke_keys_of
from codeagent.identity.digests import DigestSource
from codeagent.identity.held import is_held
from codeagent.identity.owners import is_last_owner
from codeagent.identity.passwords import Passwords, temporary_password
from codeagent.identity.scopes import SCOPES_OF, Role
from codeagent.identity.sessions import SessionPolicy, end_sessions
from codeagent.identity.users import (
    TEMPORARY_PASSWORD_LIFETIME,
    NewUser,
    check_email,
    create_user,
    next_version,
    open_emails,
)
from codeagent.messages.envelope import Event
from codeagent.messages.identity_events import PasswordReset, Revoked, UserRemoved, UserRoleChanged
from codeagent.messages.ids import parse_typed_id, user_stream

NONE_SUCH = "There is no such member."
_SELECT = """SELECT u.id, u.version, u.role, u.email_sealed, u.created_at, p.temporary_until IS NOT NULL AS temporary
    FROM users u LEFT JOIN passwords p ON p.user_id = u.id WHERE u.disabled_at IS NULL"""


@dataclass(frozen=True, slots=True)
class Member:
    """`password_is_temporary`: has not logged in yet, or not chosen a password of their own."""

    id: str
    version: int
    role: Role
    email: str | None
    created_at: datetime
    password_is_temporary: bool


@dataclass(frozen=True, slots=True)
class NewMember:
    """`temporary_password` None: an earlier request under the same key had added them, and was shown it."""

    member: Member
    temporary_password: str | None


class Members:
    """`database` works under the edge's role. Changes of one tenant's members wait for each other, so that two owners
    who remove each other do not leave none."""

    def __init__(
        self, database: Database, box: SecretBox, digests: DigestSource, passwords: Passwords, policy: SessionPolicy
    ) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._box = box
        self._digests = digests
        self._passwords = passwords
        self._policy = policy

    async def add(self, author: Author, user_id: str, email: str, role: Role) -> NewMember:
        """Makes a user with a temporary password, shown this once. Raises `InvalidInput` for an address that is none
        or an id that stands for another request, `Conflict` for an address that somebody has."""
        check_email(email)
        if (before := await self._added_before(author.tenant_id, user_id, email, role)) is not None:
            return NewMember(before, None)
        password = temporary_password()
        new = NewUser(author.tenant_id, email, role, await self._passwords.hash(password), temporary=True)
        try:
            async with self._control.change(author) as change:
                if not await change.rows("SELECT FROM tenants"):
                    detail = "This tenant has no users: an operator makes the first one (codeagent admin bootstrap)."
                    raise Rejected(detail, code="conflict", status=409)
                await create_user(change, new, await self._digests.get(), self._box, user_id)
        except Conflict:
            # Another request added them meanwhile, the address is somebody's, or the id is one who was removed.
            if (before := await self._added_before(author.tenant_id, user_id, email, role)) is not None:
                return NewMember(before, None)
            detail = "Somebody has this address already, or was added under this Idempotency-Key and removed."
            raise Rejected(detail, code="conflict", status=409) from None
        return NewMember(await self.find(author.tenant_id, user_id), password)

    async def _added_before(self, tenant_id: str, user_id: str, email: str, role: Role) -> Member | None:
        digest = (await self._digests.get()).email(email)
        rows = await self._database.fetch(
            "SELECT email_digest FROM users WHERE id = $1 AND disabled_at IS NULL", user_id, tenant=tenant_id
        )
        if not rows:
            return None
        member = await self.find(tenant_id, user_id)
        if rows[0]["email_digest"] != digest or member.role is not role:
            raise InvalidInput("This Idempotency-Key was used for another request.", code="idempotency_key_reused")
        return member

    async def find(self, tenant_id: str, user_id: str) -> Member:
        """Raises `NotFound`, also for one who was removed."""
        if parse_typed_id("usr", user_id) is None:
            raise NotFound(NONE_SUCH)
        rows = await self._database.fetch(f"{_SELECT} AND u.id = $1", user_id, tenant=tenant_id)
        if not rows:
            raise NotFound(NONE_SUCH)
        [member] = await self._members(rows)
        return member

    async def page(self, tenant_id: str, after: str | None, limit: int) -> tuple[Sequence[Member], str | None]:
        """In the order of their ids, and the cursor of what follows. Raises `Rejected` (`malformed_cursor`)."""
        beyond = parse_id_cursor("usr", after)
        rows = await self._database.fetch(
            f"{_SELECT} AND ($1::text IS NULL OR u.id > $1) ORDER BY u.id LIMIT $2", beyond, limit + 1, tenant=tenant_id
        )
        found, following = page_of(rows, limit, lambda row: str(row["id"]))
        return await self._members(found), following

    async def change_role(self, author: Author, member: Member, role: Role) -> None:
        """Logins that may do less from now on end. Raises `VersionMismatch`, and `Conflict` for the last owner."""
        async with self._control.change(author) as change:
            await _assert_owner_left(change, author.tenant_id, member, role)
            version = member.version
            if not SCOPES_OF[role] >= SCOPES_OF[member.role]:
                version += await self._end_logins(change, member)
            fact = UserRoleChanged(user_id=member.id, role=role.value)
            await _update(change, member, version, "role = $3", role.value, fact=fact)

    async def remove(self, author: Author, member: Member) -> None:
        """For good: logins and keys end, and the address may be used again. It is forgotten; under a legal hold once
        that is lifted. Raises as `change_role`."""
        async with self._control.change(author) as change:
            kept = await is_held(change, author.tenant_id, member.id)
            await _assert_owner_left(change, author.tenant_id, member, None)
            version = member.version + await self._end_logins(change, member)
            gone = f"disabled_at = clock_timestamp(), email_digest = NULL{'' if kept else ', email_sealed = NULL'}"
            await _update(change, member, version, gone, fact=UserRemoved(user_id=member.id))
            await revoke_keys_of(change, member.id)

    async def end_logins(self, author: Author, member: Member) -> None:
        """All of them, and nothing else: the member may log in again."""
        async with self._control.change(author) as change:
            await self._end_logins(change, member)

    async def reset_password(self, author: Author, member: Member) -> str:
        """Ends all logins, and returns the temporary password that takes the place of the one that was forgotten."""
        password = temporary_password()
        hashed = await self._passwords.hash(password)
        async with self._control.change(author) as change:
            await self._end_logins(change, member)
            await change.rows(
                """UPDATE passwords SET hash = $2, changed_at = clock_timestamp(),
                                        temporary_until = clock_timestamp() + $3::interval
                   WHERE user_id = $1""",
                member.id,
                hashed,
                TEMPORARY_PASSWORD_LIFETIME,
            )
            fact = PasswordReset(user_id=member.id)
            await change.record(user_stream(member.id), await next_version(change, member.id), fact)
        return password

    async def _end_logins(self, change: Change, member: Member) -> int:
        """By how many the version of the user's row has grown."""
        return 1 if await end_sessions(change, member.id, Revoked.REVOKED, self._policy) else 0

    async def _members(self, rows: Sequence[Row]) -> list[Member]:
        sealed = {row["id"]: row["email_sealed"] for row in rows}
        emails = await open_emails(self._database.subjects, self._box, sealed)
        return [
            Member(row["id"], row["version"], Role(row["role"]), emails[row["id"]], row["created_at"], row["temporary"])
            for row in rows
        ]


async def _assert_owner_left(change: Change, tenant_id: str, member: Member, role: Role | None) -> None:
    if await is_last_owner(change, tenant_id, member.id) and role is not Role.OWNER:
        raise Rejected("This is the last owner: make somebody else one first.", code="last_owner", status=409)


async def _update(change: Change, member: Member, version: int, what: str, *values: object, fact: Event) -> None:
    row = await change.row(
        f"UPDATE users SET {what}, version = version + 1 "  # noqa: S608  constants
        "WHERE id = $1 AND version = $2 AND disabled_at IS NULL RETURNING version",
        member.id,
        version,
        *values,
    )
    await change.record(user_stream(member.id), row["version"], fact)
