"""API keys as rows, each written together with its fact: made, listed, rotated, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from codeagent import clock
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, InvalidInput, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, Change, ControlPlane, check_repeat
from codeagent.identity.keys import KeyHasher, hint_of_key, new_key
from codeagent.identity.principal import Network
from codeagent.identity.revocations import Kind, revoke
from codeagent.identity.scopes import Scope, known_scopes
from codeagent.messages.ids import api_key_stream, parse_typed_id
from codeagent.messages.key_events import ApiKeyCreated, ApiKeyRevoked, ApiKeyRotated
from codeagent.subjects.texts import open_texts, seal_text

DEFAULT_LIFE = timedelta(days=90)
NONE_SUCH = "There is no such API key."
REVOCATION_KEPT = timedelta(hours=24)
"""Longer than any cache remembers a key and any stream stays open."""

_COLUMNS = """id, principal_id, created_by, version, hint, name, scopes, networks, fingerprint, replaces, replaced_by,
    created_at, expires_at, revoked_at, last_used_at"""


class KeyStatus(StrEnum):
    ACTIVE = "active"
    ROTATED = "rotated"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it, without the key. `hint` is how it begins; `version` that of its stream."""

    id: str
    principal_id: str
    created_by: str
    version: int
    hint: str
    name: str
    scopes: frozenset[Scope]
    networks: tuple[Network, ...]
    fingerprint: str
    replaces: str | None
    replaced_by: str | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def status(self) -> KeyStatus:
        """As it is now. A rotated key can be used until it expires."""
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at <= clock.now():
            return KeyStatus.EXPIRED
        return KeyStatus.ACTIVE if self.replaced_by is None else KeyStatus.ROTATED


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A key to make. `id` is derived from the request, so that a repeat makes none; `fingerprint` is its body's."""

    id: str
    principal_id: str
    name: str
    scopes: frozenset[Scope]
    networks: tuple[Network, ...] = ()
    expires_at: datetime | None = None
    fingerprint: str = ""
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class MadeKey:
    """`secret` is the key itself, which nobody can tell a second time: None where an earlier request made it."""

    key: ApiKey
    secret: str | None


class ApiKeys:
    """`database` works under the edge's role. Every method sees the keys of the named tenant, or of the author's."""

    def __init__(self, database: Database, hasher: KeyHasher, *, longest_life: timedelta) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._hasher = hasher
        self._longest = longest_life

    async def create(self, author: Author, order: KeyOrder) -> MadeKey:
        """Raises `InvalidInput` for an expiry out of bounds, and for an id that stands for another request."""
        if (before := await self._made_before(author.tenant_id, order)) is not None:
            return MadeKey(before, None)
        expires_at = self._expiry(order.expires_at)
        secret = new_key()
        try:
            async with self._control.change(author) as change:
                key = await self._insert(change, author, order, secret, expires_at)
        except Conflict:
            if (before := await self._made_before(author.tenant_id, order)) is not None:
                return MadeKey(before, None)
            raise
        return MadeKey(key, secret)

    async def _made_before(self, tenant_id: str, order: KeyOrder) -> ApiKey | None:
        try:
            key = await self.find(tenant_id, order.id)
        except NotFound:
            return None
        check_repeat(key.fingerprint, order.fingerprint)
        return key

    def _expiry(self, wanted: datetime | None) -> datetime:
        now = clock.now()
        if wanted is None:
            return now + min(DEFAULT_LIFE, self._longest)
        if not now < wanted <= now + self._longest:
            raise InvalidInput(f"A key ends within {self._longest.days} days from now.", pointer="/expires_at")
        return wanted

    async def _insert(
        self, change: Change, author: Author, order: KeyOrder, secret: str, expires_at: datetime
    ) -> ApiKey:
        row = await change.row(
            f"""INSERT INTO api_keys (id, tenant_id, principal_id, created_by, version, digest, hint, name, scopes,
                                      networks, fingerprint, replaces, expires_at)
                VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, $10, $11, $12)
                RETURNING {_COLUMNS}""",  # noqa: S608  constants
            order.id,
            author.tenant_id,
            order.principal_id,
            author.id,
            self._hasher.digest(secret),
            hint_of_key(secret),
            await seal_text(
                self._database.subjects, author.tenant_id, order.principal_id, order.name, name_place(order.id)
            ),
            sorted(order.scopes),
            list(order.networks),
            order.fingerprint,
            order.replaces,
            expires_at,
        )
        key = replace(_from_row(row), name=order.name)
        fact = ApiKeyCreated(
            key_id=key.id,
            principal=key.principal_id,
            name=key.name,
            scopes=tuple(sorted(key.scopes)),
            networks=tuple(str(network) for network in key.networks),
            expires_at=key.expires_at,
            replaces=key.replaces,
        )
        await change.record(api_key_stream(key.id), key.version, fact)
        return key

    async def find(self, tenant_id: str, key_id: str) -> ApiKey:
        """Raises `NotFound`, also for another tenant's key."""
        if parse_typed_id("key", key_id) is None:
            raise NotFound(NONE_SUCH)
        rows = await self._database.fetch(
            f"SELECT {_COLUMNS} FROM api_keys WHERE id = $1",  # noqa: S608  constants
            key_id,
            tenant=tenant_id,
        )
        if not rows:
            raise NotFound(NONE_SUCH)
        return (await self._opened(rows))[0]

    async def page(
        self, tenant_id: str, *, principal_id: str | None, after: str | None, limit: int
    ) -> tuple[Sequence[ApiKey], str | None]:
        """Keys, newest first, of one principal or of all, and the next page's cursor. Raises `Rejected` for a cursor
        that is none."""
        created_at, key_id = parse_time_cursor("key", after)
        rows = await self._database.fetch(
            f"""SELECT {_COLUMNS} FROM api_keys
                WHERE ($1::text IS NULL OR principal_id = $1)
                  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
                ORDER BY created_at DESC, id DESC LIMIT $4""",  # noqa: S608  constants
            principal_id,
            created_at,
            key_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = await self._opened(rows)
        return page_of(found, limit, lambda key: format_time_cursor(key.created_at, key.id))

    async def _opened(self, rows: Sequence[Row]) -> list[ApiKey]:
        names = await open_texts(self._database.subjects, {name_place(row["id"]): row["name"] for row in rows})
        return [replace(_from_row(row), name=names[name_place(row["id"])]) for row in rows]

    async def revoke(self, author: Author, key: ApiKey) -> None:
        """At once, on every edge. Raises `VersionMismatch` where the key has changed since it was read."""
        if key.status is KeyStatus.REVOKED:
            return
        now = clock.now()
        async with self._control.change(author) as change:
            row = await change.row(
                "UPDATE api_keys SET revoked_at = $3, version = version + 1 WHERE id = $1 AND version = $2 "
                "RETURNING id, version",
                key.id,
                key.version,
                now,
            )
            await _revoked(change, row, now)

    async def rotate(self, author: Author, key: ApiKey, successor: KeyOrder, overlap: timedelta) -> MadeKey:
        """Makes the successor and lets the key be used for `overlap` more. Raises `Conflict`
        (`invalid_state_transition`) for a key that is not active, `VersionMismatch` for one that has changed."""
        if key.status is not KeyStatus.ACTIVE:
            raise Conflict(f"The key is {key.status}.", code="invalid_state_transition")
        expires_at, secret = self._expiry(successor.expires_at), new_key()
        valid_until = min(key.expires_at, clock.now() + overlap)
        async with self._control.change(author) as change:
            row = await change.row(
                "UPDATE api_keys SET replaced_by = $3, expires_at = $4, version = version + 1 "
                "WHERE id = $1 AND version = $2 RETURNING version",
                key.id,
                key.version,
                successor.id,
                valid_until,
            )
            # For those who remember the key with its former end, and for streams that it has opened.
            await revoke(change, Kind.API_KEY, key.id, valid_until + REVOCATION_KEPT, at=valid_until)
            rotated = ApiKeyRotated(key_id=key.id, successor=successor.id, valid_until=valid_until)
            await change.record(api_key_stream(key.id), row["version"], rotated)
            return MadeKey(await self._insert(change, author, successor, secret, expires_at), secret)


async def revoke_keys_of(change: Change, principal_id: str) -> None:
    """Every key of a principal, in the transaction that shuts the principal out."""
    now = clock.now()
    rows = await change.rows(
        "UPDATE api_keys SET revoked_at = $2, version = version + 1 "
        "WHERE principal_id = $1 AND revoked_at IS NULL AND expires_at > $2 RETURNING id, version",
        principal_id,
        now,
    )
    for row in rows:
        await _revoked(change, row, now)


async def _revoked(change: Change, row: Row, now: datetime) -> None:
    await revoke(change, Kind.API_KEY, row["id"], now + REVOCATION_KEPT)
    await change.record(api_key_stream(row["id"]), row["version"], ApiKeyRevoked(key_id=row["id"]))


def name_place(key_id: str) -> str:
    """Where a key's sealed name belongs."""
    return f"api_keys/{key_id}/name"


def _from_row(row: Row) -> ApiKey:
    values = dict(row)
    values["scopes"] = known_scopes(values["scopes"])
    values["networks"] = tuple(values["networks"])
    return ApiKey(**values)
