"""Every way in which a credential is accepted, and the one place where an accepted one may still be refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from codeagent import clock
from codeagent.identity.principal import Principal
from codeagent.identity.revocations import Revocations
from codeagent.identity.scopes import Scope

Authenticate = Callable[[str], Awaitable[Principal | None]]
"""From a credential's text to its principal, or None where it is not one of that kind. Remembers what it likes."""


class Authenticator:
    """Asks `bootstrap`, the keys that the operator has written down and takes back himself, then the `sources` of
    credentials that end or are revoked."""

    def __init__(self, bootstrap: Authenticate, sources: Sequence[Authenticate], revocations: Revocations) -> None:
        self._bootstrap = bootstrap
        self._sources = tuple(sources)
        self._revocations = revocations

    async def __call__(self, credential: str) -> Principal | None:
        """None for what is unknown, has ended or is revoked. Raises `Unavailable` where that cannot be told now."""
        principal = await self._bootstrap(credential)
        if principal is not None:
            return principal
        for authenticate in self._sources:
            principal = await authenticate(credential)
            if principal is not None:
                return _of_tenant(principal) if self._holds(principal) else None
        return None

    def _holds(self, principal: Principal) -> bool:
        self._revocations.assure_current()
        ended = principal.expires_at is not None and principal.expires_at <= clock.now()
        return not ended and not self._revocations.revoked(principal)


def _of_tenant(principal: Principal) -> Principal:
    """Whatever a tenant's credential says of itself, it is no operator's."""
    if Scope.OPERATOR not in principal.scopes:
        return principal
    return replace(principal, scopes=principal.scopes - {Scope.OPERATOR})
