"""What users do with their own account."""

from __future__ import annotations

from codeagent.encryption import SecretBox
from codeagent.errors import InvalidInput, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import ControlPlane
from codeagent.identity.digests import DigestSource
from codeagent.identity.logins import attempt_of
from codeagent.identity.origin import Origin
from codeagent.identity.passwords import Passwords, check_password
from codeagent.identity.principal import Principal
from codeagent.identity.sessions import SessionPolicy, end_sessions
from codeagent.identity.throttle import LoginThrottle
from codeagent.identity.users import User, next_version, open_email, read_user
from codeagent.messages.identity_events import LoginFailed, PasswordChanged, Revoked
from codeagent.messages.ids import user_stream
from codeagent.telemetry import metrics


class Accounts:
    def __init__(
        self,
        database: Database,
        box: SecretBox,
        digests: DigestSource,
        passwords: Passwords,
        throttle: LoginThrottle,
        policy: SessionPolicy,
    ) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._box = box
        self._digests = digests
        self._passwords = passwords
        self._throttle = throttle
        self._policy = policy

    async def read(self, caller: Principal) -> User:
        """Raises `NotFound`."""
        return await read_user(self._database, self._box, caller.tenant_id, caller.id)

    async def change_password(self, caller: Principal, current: str, new: str, origin: Origin) -> None:
        """Sets a password and ends the caller's other sessions.

        Raises `InvalidInput` for a wrong or a weak one, `Throttled` after too many wrong ones.
        """
        row = await self._row(caller)
        email = await open_email(self._database.subjects, self._box, caller.id, row["email_sealed"])
        check_password(new, email or "", pointer="/new_password")
        digests = await self._digests.get()
        attempt = attempt_of(digests, row["email_digest"], origin, known=True)
        await self._throttle.begin(attempt)
        if not await self._passwords.matches(row["hash"], current):
            await self._failed(caller, origin)
            raise InvalidInput("This is not the password.", pointer="/current_password", code="wrong_password")
        await self._throttle.succeeded(attempt)
        if new == current:
            raise InvalidInput("This is the password already.", pointer="/new_password", code="weak_password")
        await self._set(caller, await self._passwords.hash(new), origin)

    async def _row(self, caller: Principal) -> Row:
        rows = await self._database.fetch(
            """SELECT u.email_digest, u.email_sealed, p.hash FROM users u JOIN passwords p ON p.user_id = u.id
               WHERE u.id = $1 AND u.email_sealed IS NOT NULL""",
            caller.id,
            tenant=caller.tenant_id,
        )
        if not rows:
            raise NotFound("There is no such user.")
        return rows[0]

    async def _failed(self, caller: Principal, origin: Origin) -> None:
        metrics.AUTH_FAILURES.labels("wrong_password").inc()
        async with self._control.change(origin.author(caller.tenant_id, caller.id)) as change:
            fact = LoginFailed(user_id=caller.id, client_id=None, reason="wrong_password")
            await change.record(user_stream(caller.id), await next_version(change, caller.id), fact)

    async def _set(self, caller: Principal, hashed: str, origin: Origin) -> None:
        async with self._control.change(origin.author(caller.tenant_id, caller.id)) as change:
            kept = caller.credential_id
            await end_sessions(change, caller.id, Revoked.PASSWORD_CHANGED, self._policy, keep=kept)
            await change.rows(
                """UPDATE passwords SET hash = $2, changed_at = clock_timestamp(), temporary_until = NULL
                   WHERE user_id = $1""",
                caller.id,
                hashed,
            )
            fact = PasswordChanged(user_id=caller.id)
            await change.record(user_stream(caller.id), await next_version(change, caller.id), fact)
