"""Service accounts: programs that act in a tenant's name, as OAuth clients with a secret of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import compare_digest

from codeagent import clock
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, ControlPlane, check_repeat
from codeagent.identity.api_keys import revoke_keys_of
from codeagent.identity.clients import OAuthError, wanted_scopes
from codeagent.identity.digests import DigestSource, random_token
from codeagent.identity.grants import Grant
from codeagent.identity.refusals import Refusal, Refuse
from codeagent.identity.revocations import Kind, revoke
from codeagent.identity.scopes import Scope, format_scopes, parse_scopes
from codeagent.identity.sessions import SessionPolicy
from codeagent.messages.identity_events import ServiceAccountCreated, ServiceAccountDisabled
from codeagent.messages.ids import parse_typed_id, service_account_stream

PREFIX = "sva"
NONE_SUCH = "There is no such service account."


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """`id` is the OAuth client id."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime


class ServiceAccounts:
    def __init__(
        self,
        database: Database,
        digests: DigestSource,
        policy: SessionPolicy,
        refuse: Refuse = lambda *_: None,
    ) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._digests = digests
        self._policy = policy
        self._refuse = refuse

    async def create(
        self, author: Author, account_id: str, name: str, scopes: frozenset[Scope]
    ) -> tuple[ServiceAccount, str | None]:
        """A new account and its secret, which is shown this once: None where an earlier request has made it, from
        which `account_id` is derived. Raises `InvalidInput` for an id that stands for another request, `Conflict` for
        one whose account has been disabled."""
        digests, secret = await self._digests.get(), random_token("cas")
        try:
            async with self._control.change(author) as change:
                row = await change.row(
                    """INSERT INTO service_accounts (id, tenant_id, version, name, scope, secret_digest)
                       VALUES ($1, $2, 1, $3, $4, $5) RETURNING *""",
                    account_id,
                    author.tenant_id,
                    name,
                    format_scopes(scopes),
                    digests.token(secret),
                )
                fact = ServiceAccountCreated(service_account_id=account_id, name=name, scopes=tuple(sorted(scopes)))
                await change.record(service_account_stream(account_id), 1, fact)
        except Conflict:
            return await self._made_before(author.tenant_id, account_id, name, scopes), None
        return _account(row), secret

    async def _made_before(
        self, tenant_id: str, account_id: str, name: str, scopes: frozenset[Scope]
    ) -> ServiceAccount:
        try:
            account = await self.read(tenant_id, account_id)
        except NotFound:
            raise Conflict("The account that this Idempotency-Key made has been disabled.") from None
        check_repeat(f"{account.name}\n{format_scopes(account.scopes)}", f"{name}\n{format_scopes(scopes)}")
        return account

    async def list(self, tenant_id: str, after: str | None, limit: int) -> tuple[Sequence[ServiceAccount], str | None]:
        """Accounts that are not disabled, newest first, and the cursor of what follows. Raises `Rejected`."""
        created_at, account_id = parse_time_cursor(PREFIX, after)
        rows = await self._database.fetch(
            """SELECT * FROM service_accounts
               WHERE disabled_at IS NULL AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
               ORDER BY created_at DESC, id DESC LIMIT $3""",
            created_at,
            account_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = [_account(row) for row in rows]
        return page_of(found, limit, lambda account: format_time_cursor(account.created_at, account.id))

    async def read(self, tenant_id: str, account_id: str) -> ServiceAccount:
        """Raises `NotFound`, also for one that is disabled."""
        _check_id(account_id)
        query = "SELECT * FROM service_accounts WHERE id = $1 AND disabled_at IS NULL"
        rows = await self._database.fetch(query, account_id, tenant=tenant_id)
        if not rows:
            raise NotFound(NONE_SUCH)
        return _account(rows[0])

    async def disable(self, author: Author, account_id: str) -> None:
        """For good; its tokens and keys are refused everywhere within a second. Raises `NotFound`."""
        _check_id(account_id)
        async with self._control.change(author) as change:
            rows = await change.rows(
                """UPDATE service_accounts SET disabled_at = clock_timestamp(), version = version + 1
                   WHERE id = $1 AND disabled_at IS NULL RETURNING version""",
                account_id,
            )
            if not rows:
                raise NotFound(NONE_SUCH)
            until = clock.now() + self._policy.access + timedelta(minutes=1)
            await revoke(change, Kind.SESSION, account_id, until)
            await revoke_keys_of(change, account_id)
            fact = ServiceAccountDisabled(service_account_id=account_id)
            await change.record(service_account_stream(account_id), rows[0]["version"], fact)

    async def revoke_token(self, author: Author, token_id: str) -> None:
        """Has one access token refused everywhere, by its `jti`."""
        async with self._control.change(author) as change:
            await revoke(change, Kind.JTI, token_id, clock.now() + self._policy.access + timedelta(minutes=1))

    async def grant(self, client_id: str, secret: str, scope: str | None, address: str | None) -> Grant:
        """What an account may do with its secret. Raises `OAuthError`."""
        row = await self.authenticate(client_id, secret, address)
        wanted, allowed = wanted_scopes(scope), parse_scopes(row["scope"])
        return Grant(row["tenant_id"], client_id, client_id, client_id, wanted & allowed, clock.now())

    async def authenticate(self, client_id: str, secret: str, address: str | None) -> Row:
        """The row of an account that knows its secret. Raises `OAuthError` (`invalid_client`)."""
        digests = await self._digests.get()
        named = client_id if parse_typed_id(PREFIX, client_id) is not None else ""
        rows = await self._database.fetch("SELECT * FROM find_service_account_v1($1)", named)
        known = rows[0]["secret_digest"] if rows else bytes(32)
        if not compare_digest(known, digests.token(secret)) or not rows or rows[0]["locked_out"]:
            if rows:
                self._refuse(
                    Refusal(rows[0]["tenant_id"], "service_account", client_id, client_id, "wrong_secret"), address
                )
            raise OAuthError("invalid_client", "The client is not known, or this is not its secret.", status=401)
        return rows[0]


def _check_id(account_id: str) -> None:
    if parse_typed_id(PREFIX, account_id) is None:
        raise NotFound(NONE_SUCH)


def _account(row: Row) -> ServiceAccount:
    return ServiceAccount(row["id"], row["name"], parse_scopes(row["scope"]), row["created_at"])
