"""Where webhooks may go: https to public addresses, judged by the address that will be dialled, each time anew."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2

from codeagent.addresses import Address, is_public
from codeagent.errors import InvalidInput

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Lookup = Callable[[str, int], Sequence[str]]
"""The addresses of a name, as text. Blocks, and raises `OSError` where there are none."""

_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?", re.IGNORECASE)
_LOOKUP_SECONDS = 5.0


class TargetRefused(InvalidInput):
    """A place that webhooks may not go to. The detail is the same whether a name does not exist or is private, so that
    nobody can list an internal network with it."""

    code = "unsupported_webhook_url"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, pointer="/url")


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """What the operator allows besides public addresses. `loopback` is for development: any port there, and http.
    `networks` are internal ones that tenants may reach on the allowed ports."""

    ports: frozenset[int] = frozenset({443, 8443})
    loopback: bool = False
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL that a request needs. `host` is ASCII, without brackets; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_target(url: str) -> Target:
    """Raises `TargetRefused` for what is no URL of a web server."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        raise TargetRefused("This is not a URL.") from None
    host = parsed.raw_host.decode("ascii")
    if parsed.scheme not in {"https", "http"}:
        raise TargetRefused("The URL must begin with https://.")
    if parsed.userinfo or "#" in url:
        raise TargetRefused("The URL may have neither a user name nor a fragment.")
    if not _is_host(host):
        raise TargetRefused("The URL does not name a host.")
    usual = 443 if parsed.scheme == "https" else 80
    port = usual if parsed.port is None else parsed.port
    return Target(parsed.scheme, host.lower(), port, parsed.raw_path.decode("ascii"))


def _is_host(text: str) -> bool:
    if ":" not in text:
        return _HOST.fullmatch(text) is not None
    try:
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def look_up(host: str, port: int) -> Sequence[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Targets:
    """Parses and judges. Names are looked up on threads of their own: a name server that never answers delays nobody
    who does anything else."""

    def __init__(self, policy: TargetPolicy, *, lookup: Lookup = look_up, threads: int = 8) -> None:
        self._policy = policy
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook-names")

    def parse(self, url: str) -> Target:
        """Raises `TargetRefused` for what no address could make right."""
        target = parse_target(url)
        if target.scheme != "https" and not self._policy.loopback:
            raise TargetRefused("The URL must begin with https://.")
        if target.port not in self._policy.ports and not self._policy.loopback:
            allowed = ", ".join(str(known) for known in sorted(self._policy.ports))
            raise TargetRefused(f"The port must be one of {allowed}.")
        return target

    async def addresses(self, target: Target) -> tuple[Address, ...]:
        """The addresses of a target, if every one of them may be dialled. Raises `TargetRefused`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await loop.run_in_executor(self._threads, self._lookup, target.host, target.port)
            addresses = tuple(dict.fromkeys(ipaddress.ip_address(text) for text in found))
        except (OSError, UnicodeError, ValueError, TimeoutError):
            addresses = ()
        # One bad address is enough: which one is dialled must not depend on luck.
        if not addresses or not all(self._allows(target, address) for address in addresses):
            raise TargetRefused("The URL's host does not lead to a public address.")
        return addresses

    def _allows(self, target: Target, address: Address) -> bool:
        if self._policy.loopback and address.is_loopback:
            return True
        if target.scheme != "https" or target.port not in self._policy.ports:
            return False
        trusted = any(address in network for network in self._policy.networks if network.version == address.version)
        return trusted or is_public(address)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
