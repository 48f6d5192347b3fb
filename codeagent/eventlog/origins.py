"""From where commands came: kept beside the log, as the addresses of control-plane facts are, under the command's id,
which the facts that it leads to name as their cause."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address

from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.messages.envelope import Envelope
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

WRITE_SECONDS = 0.2
MOST_WAITING = 10_000
"""Beyond that they are not kept: the database has been away for long, and nothing was accepted meanwhile."""

_Origin = tuple[Envelope, IPv4Address | IPv6Address]


class CommandOrigins:
    """`database` works under the edge's role. Addresses are written behind, many at once: no request waits for it, and
    an edge that is killed loses those of the last moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Origin] = []
        self._writing: asyncio.Task[None] | None = None

    def note(self, command: Envelope, address: str | None) -> None:
        """Nothing where the client is on no network."""
        try:
            origin = ip_address(address or "")
        except ValueError:
            return
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append((command, origin))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Writes what is left."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(WRITE_SECONDS)
                await self._write_some(self._waiting[:1_000])
        finally:
            self._writing = None

    async def _write_some(self, some: list[_Origin]) -> None:
        try:
            await self._database.write(
                "SELECT note_origins_v1($1, $2, $3, $4)",
                [command.id for command, _ in some],
                [command.tenant_id for command, _ in some],
                [command.actor_id for command, _ in some],
                [address for _, address in some],
            )
        except Unavailable as error:
            log.warning("origins.not_written", count=len(some), error=error.detail)
        del self._waiting[: len(some)]
