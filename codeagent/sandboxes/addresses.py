"""Where a fetch may go: to public addresses only, decided on the address that will be dialled."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from codeagent.addresses import Address, is_public
from codeagent.sandboxes.protocol import SandboxFailure


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """The addresses of `host`, resolved once. Raises `SandboxFailure` (`fetch_failed`, retryable)."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SandboxFailure("the host name cannot be resolved", reason="fetch_failed") from None
    addresses = dict.fromkeys(ipaddress.ip_address(str(entry[4][0])) for entry in found)
    if not addresses:
        raise SandboxFailure("the host name has no address", reason="fetch_failed")
    return tuple(addresses)


async def assert_public(host: str, port: int = 443) -> tuple[Address, ...]:
    """The addresses of `host` if every one of them is public. Raises `SandboxFailure` (`address_refused`)."""
    addresses = await resolve(host, port)
    if not all(is_public(address) for address in addresses):
        # One private address is enough: which one is dialled must not depend on luck.
        raise SandboxFailure("the host does not have a public address", reason="address_refused", retryable=False)
    return addresses
