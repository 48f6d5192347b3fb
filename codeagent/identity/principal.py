"""Who is calling, once a credential has been accepted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address

from codeagent.identity.scopes import ALL, Scope

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request. Ids are pseudonymous: never a name or an address.

    `credential_id` is the key or session that was shown, `type` one of `app_user`, `service_account`, `api_key`.
    `token_id` is the `jti` of an access token. `expires_at` ends open streams; None where the credential has no end.
    `networks` are those it may be used from; any where there are none.
    """

    tenant_id: str
    id: str
    credential_id: str
    type: str = "api_key"
    scopes: frozenset[Scope] = ALL
    expires_at: datetime | None = None
    token_id: str = ""
    networks: tuple[Network, ...] = ()

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def may_come_from(self, address: str | None) -> bool:
        """Whether the credential may be used from a client's address, as the socket or a trusted proxy tells it."""
        if not self.networks:
            return True
        try:
            client = ip_address(address or "")
        except ValueError:
            return False
        # A server that listens on IPv6 sees IPv4 clients so.
        client = getattr(client, "ipv4_mapped", None) or client
        return any(client in network for network in self.networks)
