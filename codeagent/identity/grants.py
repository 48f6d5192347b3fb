"""From a code or a refresh token to the right to an access token.

A refresh token is good for one use. One that comes again within the grace, from where it was used, gets the same
successor again as long as nobody has used that: the answer was lost, or two requests of one client crossed. Anything
else means that two hold the family, and ends it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from codeagent.clock import new_uuid
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Change, ControlPlane
from codeagent.identity.clients import OAuthError, answers_challenge
from codeagent.identity.digests import Digests, DigestSource, random_token
from codeagent.identity.origin import Origin
from codeagent.identity.scopes import SCOPES_OF, Role, Scope, parse_scopes
from codeagent.identity.sessions import PREFIX, SessionPolicy, end_sessions
from codeagent.identity.users import next_version
from codeagent.messages.identity_events import LoginSucceeded, RefreshReuseDetected, Revoked
from codeagent.messages.ids import typed_id, user_stream
from codeagent.telemetry import metrics

_SALT = 16

_OF_CODE = """
SELECT c.*, u.role, p.temporary_until IS NOT NULL AS temporary, c.expires_at < clock_timestamp() AS expired,
       u.disabled_at IS NOT NULL OR t.suspended_at IS NOT NULL AS locked_out
FROM authorization_codes c JOIN users u ON u.id = c.user_id JOIN tenants t ON t.id = u.tenant_id
     JOIN passwords p ON p.user_id = u.id
WHERE c.digest = $1 FOR UPDATE OF c"""

# The session is locked, so that the uses of a family's tokens take turns.
_OF_FAMILY = """
SELECT s.id AS session_id, s.user_id, s.tenant_id, s.client_id, s.scope, s.auth_time, u.role,
       p.temporary_until IS NOT NULL AS temporary,
       s.expires_at < clock_timestamp() OR s.last_used_at < clock_timestamp() - $2::interval AS expired,
       s.revoked_at IS NOT NULL OR u.disabled_at IS NOT NULL OR t.suspended_at IS NOT NULL AS locked_out
FROM login_sessions s JOIN users u ON u.id = s.user_id JOIN tenants t ON t.id = u.tenant_id
     JOIN passwords p ON p.user_id = u.id
WHERE s.id = (SELECT session_id FROM refresh_tokens WHERE digest = $1) FOR UPDATE OF s"""

_USE = """
SELECT used_at IS NOT NULL AS used, salt, network_digest,
       used_at > clock_timestamp() - $2::interval AS recent
FROM refresh_tokens WHERE digest = $1"""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an access token is made from. `scopes` are those of the session that the user's role has at this moment,
    and none while the password is a temporary one."""

    tenant_id: str
    subject: str
    session_id: str
    client_id: str
    scopes: frozenset[Scope]
    auth_time: datetime
    refresh_token: str | None = None


class Grants:
    """Each method raises `OAuthError` (`invalid_grant`) for whatever it does not take, and does not say why."""

    def __init__(self, database: Database, digests: DigestSource, policy: SessionPolicy) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._digests = digests
        self._policy = policy

    async def redeem(self, code: str, verifier: str, client_id: str, origin: Origin) -> Grant:
        """Opens the session that a code stands for. A code that comes twice ends the session it has opened."""
        digests = await self._digests.get()
        digest = digests.token(code)
        tenant_id, user_id = await self._holder("SELECT * FROM holder_of_code_v1($1)", digest)
        async with self._control.change(origin.author(tenant_id, user_id)) as change:
            [row] = await change.rows(_OF_CODE, digest)
            mine = row["client_id"] == client_id and answers_challenge(verifier, row["code_challenge"])
            grant = None
            if mine and row["session_id"] is not None:
                await end_sessions(change, user_id, Revoked.CODE_REUSE, self._policy, only=row["session_id"])
            elif mine and not row["expired"] and not row["locked_out"]:
                grant = await self._open(change, digests, row, digests.network(origin.address))
                await change.rows(
                    "UPDATE authorization_codes SET session_id = $2 WHERE digest = $1", digest, grant.session_id
                )
        if grant is None:
            raise _refused()
        return grant

    async def _open(self, change: Change, digests: Digests, row: Row, network: bytes) -> Grant:
        grant = _grant(row, typed_id(PREFIX, new_uuid()), random_token("crt"))
        await change.rows(
            """INSERT INTO login_sessions
                   (id, tenant_id, user_id, client_id, scope, network_digest, auth_time, expires_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8::interval)""",
            grant.session_id,
            grant.tenant_id,
            grant.subject,
            grant.client_id,
            row["scope"],
            network,
            grant.auth_time,
            self._policy.absolute,
        )
        await self._keep(change, digests, grant)
        fact = LoginSucceeded(user_id=grant.subject, session_id=grant.session_id, client_id=grant.client_id)
        await change.record(user_stream(grant.subject), await next_version(change, grant.subject), fact)
        return grant

    async def _keep(self, change: Change, digests: Digests, grant: Grant) -> None:
        await change.rows(
            "INSERT INTO refresh_tokens (digest, tenant_id, session_id) VALUES ($1, $2, $3)",
            digests.token(grant.refresh_token or ""),
            grant.tenant_id,
            grant.session_id,
        )

    async def refresh(self, token: str, client_id: str, origin: Origin) -> Grant:
        """The successor of a refresh token. The family ends when it is one that had been used."""
        digests = await self._digests.get()
        digest = digests.token(token)
        tenant_id, user_id = await self._holder("SELECT * FROM holder_of_refresh_token_v1($1)", digest)
        async with self._control.change(origin.author(tenant_id, user_id)) as change:
            [row] = await change.rows(_OF_FAMILY, digest, self._policy.idle)
            grant = None
            if row["client_id"] == client_id and not row["expired"] and not row["locked_out"]:
                successor = await self._successor(change, digests, token, row, digests.network(origin.address))
                grant = None if successor is None else _grant(row, row["session_id"], successor)
        if grant is None:
            raise _refused()
        return grant

    async def _successor(self, change: Change, digests: Digests, token: str, row: Row, network: bytes) -> str | None:
        digest = digests.token(token)
        [use] = await change.rows(_USE, digest, self._policy.grace)
        if not use["used"]:
            return await self._rotate(change, digests, token, row, network)
        successor = digests.successor(token, use["salt"])
        if use["recent"] and use["network_digest"] == network:
            [following] = await change.rows(_USE, digests.token(successor), self._policy.grace)
            if not following["used"]:
                return successor
        metrics.REFRESH_REUSE.inc()
        fact = RefreshReuseDetected(user_id=row["user_id"], session_id=row["session_id"], client_id=row["client_id"])
        await end_sessions(change, row["user_id"], Revoked.REFRESH_REUSE, self._policy, only=row["session_id"])
        await change.record(user_stream(row["user_id"]), await next_version(change, row["user_id"]), fact)
        return None

    async def _rotate(self, change: Change, digests: Digests, token: str, row: Row, network: bytes) -> str:
        salt = os.urandom(_SALT)
        successor = digests.successor(token, salt)
        await change.rows(
            """UPDATE refresh_tokens SET used_at = clock_timestamp(), salt = $2, network_digest = $3
               WHERE digest = $1""",
            digests.token(token),
            salt,
            network,
        )
        await self._keep(change, digests, _grant(row, row["session_id"], successor))
        await change.rows(
            "UPDATE login_sessions SET last_used_at = clock_timestamp(), network_digest = $2 WHERE id = $1",
            row["session_id"],
            network,
        )
        return successor

    async def revoke(self, token: str, client_id: str, origin: Origin) -> None:
        """Ends the session of a refresh token, if there is such a token and it is the client's (RFC 7009)."""
        digests = await self._digests.get()
        digest = digests.token(token)
        rows = await self._database.fetch("SELECT * FROM holder_of_refresh_token_v1($1)", digest)
        if not rows:
            return
        async with self._control.change(origin.author(rows[0]["tenant_id"], rows[0]["user_id"])) as change:
            [row] = await change.rows(_OF_FAMILY, digest, self._policy.idle)
            if row["client_id"] == client_id:
                await end_sessions(change, row["user_id"], Revoked.LOGOUT, self._policy, only=row["session_id"])

    async def _holder(self, query: str, digest: bytes) -> tuple[str, str]:
        rows = await self._database.fetch(query, digest)
        if not rows:
            raise _refused()
        return rows[0]["tenant_id"], rows[0]["user_id"]


def _refused() -> OAuthError:
    return OAuthError("invalid_grant", "The code or token is not valid, or not any more.")


def _grant(row: Row, session_id: str, refresh_token: str) -> Grant:
    allowed = frozenset() if row["temporary"] else SCOPES_OF[Role(row["role"])]
    return Grant(
        row["tenant_id"],
        row["user_id"],
        session_id,
        row["client_id"],
        parse_scopes(row["scope"]) & allowed,
        row["auth_time"],
        refresh_token,
    )
