"""Logging in: from an e-mail address and a password to a code that one client can turn into a session, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import ControlPlane
from codeagent.identity.clients import OAuthError, check_challenge, check_client, wanted_scopes
from codeagent.identity.digests import Digests, DigestSource, random_token
from codeagent.identity.origin import Origin
from codeagent.identity.passwords import Passwords
from codeagent.identity.refusals import Refusal, Refuse
from codeagent.identity.scopes import format_scopes
from codeagent.identity.throttle import Attempt, LoginThrottle, Throttled
from codeagent.identity.users import next_version
from codeagent.messages.identity_events import LoginFailed
from codeagent.messages.ids import user_stream
from codeagent.telemetry import metrics

CODE_LIFETIME = timedelta(seconds=60)
Reason = Literal["wrong_password", "locked_out", "password_expired"]


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """What one of our own clients sends. `scope` None asks for all that the user may do."""

    email: str
    password: str
    client_id: str
    code_challenge: str
    code_challenge_method: str
    scope: str | None = None


# Who sends the right password may know why it is refused all the same.
_DETAILS: dict[Reason, str] = {
    "wrong_password": "The e-mail address or the password is wrong.",
    "locked_out": "The account or its tenant is suspended.",
    "password_expired": "The temporary password has expired: ask for another.",
}


class Logins:
    """Without the right password every refusal says the same, takes as long and counts the same."""

    def __init__(
        self,
        database: Database,
        digests: DigestSource,
        passwords: Passwords,
        throttle: LoginThrottle,
        refuse: Refuse = lambda *_: None,
    ) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._digests = digests
        self._passwords = passwords
        self._throttle = throttle
        self._refuse = refuse

    async def authorize(self, request: LoginRequest, origin: Origin) -> str:
        """An authorization code. Raises `OAuthError`, and `Throttled` when there were too many failures."""
        check_client(request.client_id)
        check_challenge(request.code_challenge, request.code_challenge_method)
        scopes = format_scopes(wanted_scopes(request.scope))
        digests = await self._digests.get()
        found = await self._find(digests, request.email, origin)
        attempt = attempt_of(digests, digests.email(request.email), origin, known=bool(found and found["known"]))
        await self._begin(attempt, found, origin)
        matches = await self._passwords.matches(None if found is None else found["hash"], request.password)
        reason = _refusal(found, matches=matches)
        if found is None or reason is not None:
            await self._failed(found, reason or "wrong_password", request.client_id, origin)
            raise OAuthError("access_denied", _DETAILS[reason or "wrong_password"])
        await self._throttle.succeeded(attempt)
        return await self._issue(digests, found, request, scopes, origin)

    async def _begin(self, attempt: Attempt, found: Row | None, origin: Origin) -> None:
        try:
            await self._throttle.begin(attempt)
        except Throttled:
            if found is not None:
                user_id = found["user_id"]
                refusal = Refusal(found["tenant_id"], "app_user", user_id, user_id, "login_throttled")
                self._refuse(refusal, origin.address)
            raise

    async def _find(self, digests: Digests, email: str, origin: Origin) -> Row | None:
        rows = await self._database.fetch(
            "SELECT * FROM find_login_v1($1, $2)", digests.email(email), digests.network(origin.address)
        )
        return rows[0] if rows else None

    async def _failed(self, found: Row | None, reason: Reason, client_id: str, origin: Origin) -> None:
        metrics.AUTH_FAILURES.labels(reason).inc()
        if found is None:
            return
        user_id = found["user_id"]
        async with self._control.change(origin.author(found["tenant_id"], user_id)) as change:
            version = await next_version(change, user_id)
            fact = LoginFailed(user_id=user_id, client_id=client_id, reason=reason)
            await change.record(user_stream(user_id), version, fact)

    async def _issue(self, digests: Digests, found: Row, request: LoginRequest, scopes: str, origin: Origin) -> str:
        code, hashed = random_token("cac"), found["hash"]
        rehashed = await self._passwords.hash(request.password) if self._passwords.outdated(hashed) else hashed
        async with self._control.change(origin.author(found["tenant_id"], found["user_id"])) as change:
            if rehashed != hashed:
                # Unless it was changed meanwhile.
                statement = "UPDATE passwords SET hash = $3 WHERE user_id = $1 AND hash = $2"
                await change.rows(statement, found["user_id"], hashed, rehashed)
            await change.rows(
                """INSERT INTO authorization_codes
                       (digest, tenant_id, user_id, client_id, scope, code_challenge, auth_time, expires_at)
                   VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp() + $7::interval)""",
                digests.token(code),
                found["tenant_id"],
                found["user_id"],
                request.client_id,
                scopes,
                request.code_challenge,
                CODE_LIFETIME,
            )
        return code


def attempt_of(digests: Digests, account: bytes, origin: Origin, *, known: bool) -> Attempt:
    """`known`: the user has logged in from that network before, and is not kept out by what strangers try."""
    place = (digests.network(origin.address),) if known else ()
    address = digests.throttle("address", digests.address(origin.address))
    return Attempt(digests.throttle("account", account, *place), address)


def _refusal(found: Row | None, *, matches: bool) -> Reason | None:
    if found is None or not matches:
        return "wrong_password"
    if found["locked_out"]:
        return "locked_out"
    return "password_expired" if found["expired"] else None
