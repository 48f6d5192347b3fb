"""Where a request comes from. What a proxy says of it is believed from the operator's own proxies only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import Scope

FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
MOST_HOPS = 20


class Proxies:
    """The proxies in front of this edge, as addresses or networks. Raises `ValueError` for what is neither."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._networks = tuple(ip_network(item, strict=False) for item in trusted)
        self._trusts = lru_cache(maxsize=1_024)(self._is_trusted)

    def _is_trusted(self, host: str) -> bool:
        try:
            address = _address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def resolve(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Sets `client` and `scheme` to what a trusted proxy says, and removes what anybody else says."""
        if headers.keys().isdisjoint(FORWARDED):
            return
        peer = scope["client"][0] if scope["client"] else ""
        if self._networks and self._trusts(peer):
            self._believe(scope, headers, peer)
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in FORWARDED]

    def _believe(self, scope: Scope, headers: dict[bytes, bytes], peer: str) -> None:
        scheme = headers.get(b"x-forwarded-proto", b"").strip()
        if scheme in {b"http", b"https"}:
            websocket = scope["type"] == "websocket"
            scope["scheme"] = scheme.decode().replace("http", "ws") if websocket else scheme.decode()
        # Each proxy adds the address that it was called from: the first from the right that is no proxy is the client.
        every = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        for hop in reversed(every.decode("latin-1").split(",")[-MOST_HOPS:]):
            host = _host(hop.strip())
            if host is None:
                break
            peer = host
            if not self._trusts(host):
                break
        scope["client"] = (peer, 0)


def _host(text: str) -> str | None:
    """An address without its port, or None for what is no address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(_address(text))
    except ValueError:
        return None


def _address(text: str) -> IPv4Address | IPv6Address:
    """A server on IPv6 sees IPv4 clients as IPv6 addresses: both spellings are one. Raises `ValueError`."""
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def origin_of(scope: Scope) -> str:
    """Names who is asking without a credential, for counting: a digest, and one for all of an IPv6 network."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = _address(host)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        address = IPv6Address(int(address) >> 64 << 64)
    return sha256(str(address).encode()).hexdigest()[:20]
