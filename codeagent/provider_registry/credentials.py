"""Keys of providers as operators see them: added, listed, revoked, and never shown again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.encryption import SecretBox
from codeagent.errors import CodeAgentError, Conflict, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, ControlPlane, check_repeat
from codeagent.messages.ids import parse_typed_id
from codeagent.messages.provider_events import CredentialAdded, CredentialRevoked
from codeagent.provider_registry import tables

PREFIX = "cred"
NONE_SUCH = "There is no such credential."


class CredentialState(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Credential:
    """A provider's key without the key. `last_used_at` is about a minute exact."""

    id: str
    provider: str
    version: int
    label: str
    fingerprint: str
    created_by: str
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def state(self) -> CredentialState:
        return CredentialState.ACTIVE if self.revoked_at is None else CredentialState.REVOKED


@dataclass(frozen=True, slots=True)
class CredentialOrder:
    """A key to store. `id` is derived from the request, so that a repeat stores none; `fingerprint` is the request's,
    from which the key cannot be guessed."""

    id: str
    provider: str
    label: str
    secret: str = field(repr=False)
    fingerprint: str = ""


def place_of(provider: str, credential_id: str) -> str:
    """What a sealed key is bound to, as `SEALED_COLUMNS` has it."""
    return f"provider_credentials/{provider}/{credential_id}"


class Credentials:
    """The edge's half: its role cannot read keys. Authors are of the tenant `INSTALLATION`. Without a `box` there is
    nothing to seal with."""

    def __init__(self, database: Database, box: SecretBox | None) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._box = box

    async def add(self, author: Author, order: CredentialOrder) -> tuple[Credential, bool]:
        """The credential, and whether an earlier request had stored it. Raises `InvalidInput` for an id that stands
        for another request, `not_implemented` where there is no key-encryption key."""
        if self._box is None:
            detail = "This installation has no key to seal credentials with."
            raise CodeAgentError(detail, code="not_implemented", status=501)
        if (before := await self._added_before(order)) is not None:
            return before, True
        sealed = self._box.seal(order.secret.encode(), place_of(order.provider, order.id))
        values = (order.id, order.provider, order.label, order.fingerprint, author.id, sealed)
        fact = CredentialAdded(provider=order.provider, credential_id=order.id, label=order.label)
        try:
            async with self._control.change(author) as change:
                row = await tables.insert_credential(change, values)
                await tables.append(change, order.provider, fact)
        except Conflict:
            if (before := await self._added_before(order)) is not None:
                return before, True
            raise
        return _from_row(row), False

    async def _added_before(self, order: CredentialOrder) -> Credential | None:
        try:
            found = await self.find(order.provider, order.id)
        except NotFound:
            return None
        check_repeat(found.fingerprint, order.fingerprint)
        return found

    async def find(self, provider: str, credential_id: str) -> Credential:
        """Raises `NotFound`, also for another provider's."""
        rows: Sequence[Row] = ()
        if parse_typed_id(PREFIX, credential_id) is not None:
            rows = await tables.find_credential(self._database, provider, credential_id)
        if not rows:
            raise NotFound(NONE_SUCH)
        return _from_row(rows[0])

    async def page(self, provider: str, after: str | None, limit: int) -> tuple[Sequence[Credential], str | None]:
        """A provider's, newest first, revoked ones included, and the next page's cursor. Raises `Rejected` for a cursor
        that is none."""
        created_at, credential_id = parse_time_cursor(PREFIX, after)
        rows = await tables.credentials_page(self._database, provider, created_at, credential_id, limit + 1)
        found = [_from_row(row) for row in rows]
        return page_of(found, limit, lambda item: format_time_cursor(item.created_at, item.id))

    async def stored_for(self) -> frozenset[str]:
        """The providers that have an active one."""
        return await tables.providers_with_credentials(self._database)

    async def revoke(self, author: Author, credential: Credential) -> None:
        """For good: the key is forgotten. Raises `VersionMismatch` where it has changed since it was read."""
        if credential.state is CredentialState.REVOKED:
            return
        fact = CredentialRevoked(provider=credential.provider, credential_id=credential.id)
        async with self._control.change(author) as change:
            await tables.revoke_credential(change, credential.id, credential.version)
            await tables.append(change, credential.provider, fact)
            await change.rows("SELECT pg_notify($1, '')", tables.CREDENTIAL_REVOKED)


def _from_row(row: Row) -> Credential:
    return Credential(**dict(row))
