"""Where a fetch may go: to public addresses only, decided on the address that will be dialled."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from codeagent.addresses import Address, is_public
from codeagent.sandboxes.protocol import SandboxFailure

_LONGEST_SECONDS = 5.0
_MOST_AT_ONCE = 2
_lookers = ThreadPoolExecutor(max_workers=32, thread_name_prefix="lookup")
"""Of their own: a name server that does not answer holds up lookups, and nothing else."""


class Lookups:
    """A share of this process's lookups, as one command has it: few at once, those included that nobody waits for any
    more, since a thread that asks a name server cannot be stopped."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_MOST_AT_ONCE)

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """The addresses of `host`, resolved once. Raises `SandboxFailure` (`fetch_failed`, retryable)."""
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                found = await self._asked(host, port)
        except (OSError, UnicodeError, TimeoutError):
            raise SandboxFailure("the host name cannot be resolved", reason="fetch_failed") from None
        addresses = dict.fromkeys(ipaddress.ip_address(str(entry[4][0])) for entry in found)
        if not addresses:
            raise SandboxFailure("the host name has no address", reason="fetch_failed")
        return tuple(addresses)

    async def assert_public(self, host: str, port: int = 443) -> tuple[Address, ...]:
        """The addresses of `host` if every one of them is public. Raises `SandboxFailure` (`address_refused`)."""
        addresses = await self.resolve(host, port)
        if not all(is_public(address) for address in addresses):
            # One private address is enough: which one is dialled must not depend on luck.
            raise SandboxFailure("the host does not have a public address", reason="address_refused", retryable=False)
        return addresses

    async def _asked(self, host: str, port: int) -> list[tuple[Any, ...]]:
        await self._turn.acquire()
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        asking = asyncio.get_running_loop().run_in_executor(_lookers, look_up)
        asking.add_done_callback(self._asked_for)
        return await asyncio.shield(asking)

    def _asked_for(self, asking: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not asking.cancelled():
            asking.exception()  # seen: perhaps nobody waits for it
