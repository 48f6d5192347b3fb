"""Who is calling, once a credential has been accepted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from codeagent.identity.scopes import ALL, Scope


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request. Ids are pseudonymous: never a name or an address.

    `credential_id` is the key or session that was shown, `type` one of `app_user`, `service_account`, `api_key`.
    `expires_at` ends open streams; None where the credential has no end.
    """

    tenant_id: str
    id: str
    credential_id: str
    type: str = "api_key"
    scopes: frozenset[Scope] = ALL
    expires_at: datetime | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes
