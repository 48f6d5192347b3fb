"""Login sessions: what a user sees of them, and how they end before their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from codeagent import clock
from codeagent.cursors import page_of, parse_id_cursor
from codeagent.errors import NotFound
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.identity.revocations import Kind, revoke
from codeagent.identity.users import next_version
from codeagent.messages.identity_events import Revoked, SessionsRevoked
from codeagent.messages.ids import parse_typed_id, user_stream

PREFIX = "lgn"


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long a session lives from its login and without being used, how long a used refresh token may come again,
    and how long an access token lives, which nothing but a revocation ends before."""

    absolute: timedelta = timedelta(days=30)
    idle: timedelta = timedelta(days=7)
    grace: timedelta = timedelta(seconds=10)
    access: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class LoginSession:
    """`network` is a digest: the same for logins from nearby, and no address."""

    id: str
    client_id: str
    network: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class Sessions:
    def __init__(self, database: Database, policy: SessionPolicy) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._policy = policy

    async def list(
        self, tenant_id: str, user_id: str, after: str | None, limit: int
    ) -> tuple[Sequence[LoginSession], str | None]:
        """A user's sessions that can still be used, newest first, and the cursor of what follows.

        Raises `Rejected` (`malformed_cursor`).
        """
        rows = await self._database.fetch(
            """SELECT * FROM login_sessions
               WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
                     AND last_used_at > clock_timestamp() - $2::interval AND ($3::text IS NULL OR id < $3)
               ORDER BY id DESC LIMIT $4""",
            user_id,
            self._policy.idle,
            parse_id_cursor(PREFIX, after),
            limit + 1,
            tenant=tenant_id,
        )
        found = [
            LoginSession(
                row["id"],
                row["client_id"],
                row["network_digest"].hex()[:16],
                row["created_at"],
                row["last_used_at"],
                row["expires_at"],
            )
            for row in rows
        ]
        return page_of(found, limit, lambda item: item.id)

    async def revoke_one(self, author: Author, user_id: str, session_id: str, reason: Revoked) -> None:
        """Raises `NotFound` unless the user has such a session that has not ended."""
        async with self._control.change(author) as change:
            known = parse_typed_id(PREFIX, session_id) is not None
            if not known or not await end_sessions(change, user_id, reason, self._policy, only=session_id):
                raise NotFound("There is no such login session.")

    async def revoke_all(self, author: Author, user_id: str, reason: Revoked) -> None:
        async with self._control.change(author) as change:
            await end_sessions(change, user_id, reason, self._policy)


async def end_sessions(
    change: Change,
    user_id: str,
    reason: Revoked,
    policy: SessionPolicy,
    *,
    only: str | None = None,
    keep: str | None = None,
) -> Sequence[str]:
    """Ends a user's sessions: all of them, one, or all but one. Returns the ids of those that had not ended yet.

    With all of them, codes go that could open another one.
    """
    if only is None:
        await change.rows(
            "UPDATE authorization_codes SET expires_at = clock_timestamp() WHERE user_id = $1 AND session_id IS NULL",
            user_id,
        )
    rows = await change.rows(
        """UPDATE login_sessions SET revoked_at = clock_timestamp(), revoked_reason = $2
           WHERE id IN (SELECT id FROM login_sessions
                        WHERE user_id = $1 AND revoked_at IS NULL AND ($3::text IS NULL OR id = $3)
                              AND id IS DISTINCT FROM $4
                        ORDER BY id FOR UPDATE)
           RETURNING id""",
        user_id,
        reason.value,
        only,
        keep,
    )
    ended = sorted(row["id"] for row in rows)
    if ended:
        until = clock.now() + policy.access + timedelta(minutes=1)
        for session_id in ended:
            await revoke(change, Kind.SESSION, session_id, until)
        fact = SessionsRevoked(user_id=user_id, session_ids=tuple(ended), reason=reason)
        await change.record(user_stream(user_id), await next_version(change, user_id), fact)
    return ended


async def forget_logins(database: Database, idle: timedelta, most: int) -> int:
    """Removes what no login can use any more, about `most` rows; returns how many."""
    [row] = await database.write("SELECT prune_logins_v1($1, $2)", idle, most)
    count: int = row[0]
    return count
