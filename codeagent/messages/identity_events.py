"""What happens to tenants, their users and the keys of the installation: each on the stream of the row it changes.

No e-mail or network address stands in any of them, nor a digest of one.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from codeagent.messages.envelope import Event
from codeagent.messages.personal import OfTenant


class Revoked(StrEnum):
    """Why a login session ended before its time."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  a reason, not a password
    REFRESH_REUSE = "refresh_reuse"
    CODE_REUSE = "code_reuse"


class TenantCreated(Event):
    NAME: ClassVar[str] = "tenant.created"

    tenant_id: str
    name: str


class TenantSuspended(Event):
    """Nobody of the tenant gets a new token until it is resumed."""

    NAME: ClassVar[str] = "tenant.suspended"

    tenant_id: str


class TenantResumed(Event):
    NAME: ClassVar[str] = "tenant.resumed"

    tenant_id: str


class UserCreated(Event):
    """`temporary_password`: somebody else knows it, so that it serves to choose one's own and for nothing else."""

    NAME: ClassVar[str] = "user.created"

    user_id: str
    role: str
    temporary_password: bool = False


class UserRoleChanged(Event):
    """`role` is the new one."""

    NAME: ClassVar[str] = "user.role_changed"

    user_id: str
    role: str


class UserRemoved(Event):
    """For good: logins and keys have ended, and the e-mail address is forgotten."""

    NAME: ClassVar[str] = "user.removed"

    user_id: str


class LoginSucceeded(Event):
    NAME: ClassVar[str] = "auth.login.succeeded"

    user_id: str
    session_id: str
    client_id: str
    method: Literal["password"] = "password"


class LoginFailed(Event):
    """Of accounts that exist: for one that does not there is a count, and no stream to write to.

    `client_id` is None where somebody logged in already was asked for the password again.
    """

    NAME: ClassVar[str] = "auth.login.failed"

    user_id: str
    client_id: str | None
    reason: Literal["wrong_password", "locked_out", "password_expired"]


class SessionsRevoked(Event):
    NAME: ClassVar[str] = "auth.sessions.revoked"

    user_id: str
    session_ids: tuple[str, ...]
    reason: Revoked


class RefreshReuseDetected(Event):
    """A refresh token came again after its time: it had been stolen, or its thief was first."""

    NAME: ClassVar[str] = "auth.refresh.reuse_detected"

    user_id: str
    session_id: str
    client_id: str


class PasswordChanged(Event):
    NAME: ClassVar[str] = "auth.password.changed"

    user_id: str


class PasswordReset(Event):
    """Somebody else replaced it by a temporary one."""

    NAME: ClassVar[str] = "auth.password.reset"

    user_id: str


class ServiceAccountCreated(Event):
    NAME: ClassVar[str] = "service_account.created"

    service_account_id: str
    name: Annotated[str, OfTenant("telling accounts apart", "what the user wrote")]
    scopes: tuple[str, ...]


class ServiceAccountDisabled(Event):
    NAME: ClassVar[str] = "service_account.disabled"

    service_account_id: str


class SigningKeyPublished(Event):
    """Known to verifiers from now on, signs from `active_from` on."""

    NAME: ClassVar[str] = "signing_key.published"

    kid: str
    algorithm: str
    active_from: datetime


class SigningKeyRemoved(Event):
    """Tokens it signed are refused. `expired`: there are none left; `revoked`: an operator does not trust it."""

    NAME: ClassVar[str] = "signing_key.removed"

    kid: str
    reason: Literal["expired", "revoked"]
