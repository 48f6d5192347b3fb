"""Credentials that end before their time: written once, known to every edge within a second.

PostgreSQL alone is enough. A notification makes an edge look at once; should it be lost, the regular look finds the
row by cursor. An edge that cannot look does not know what is revoked: it says so, and refuses what could be.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from codeagent.errors import CodeAgentError, Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Change
from codeagent.eventlog.notices import listen
from codeagent.identity.principal import Principal
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

CHANNEL = "revocations"
LOOK_TIMEOUT_SECONDS = 2.0
PRUNE_SECONDS = 60.0


class Kind(StrEnum):
    """What is revoked: one key, one login, one access token, or everything of a tenant."""

    API_KEY = "api_key"
    SESSION = "session"
    JTI = "jti"
    TENANT = "tenant"


async def revoke(change: Change, kind: Kind, identifier: str, until: datetime, at: datetime | None = None) -> None:
    """Writes a revocation in the transaction of the change that it belongs to, and tells the edges at its commit.

    It holds from `at`, now unless given, and is forgotten after `until`: by then the credential must be worthless by
    itself, no cache may hold it and no stream that it opened may be open.
    """
    await change.rows(
        "INSERT INTO revocations (tenant_id, kind, id, at, expires_at) "
        "VALUES (current_tenant(), $1, $2, coalesce($3, clock_timestamp()), $4)",
        kind.value,
        identifier,
        at,
        until,
    )
    await change.rows("SELECT pg_notify($1, '')", CHANNEL)


async def lift_tenant(change: Change) -> None:
    """Takes back what shut out a whole tenant, in the transaction that lets it in again, and tells the edges."""
    await change.rows("SELECT lift_tenant_v1()")
    await change.rows("SELECT pg_notify($1, '')", CHANNEL)


Handle = tuple[str, str, str]
"""A tenant, a kind and an id: nothing that one tenant revokes touches another."""


class Revocations:
    """What is revoked now, in memory: asking costs no query.

    Unless `fail_closed`, credentials go on being accepted while the database is away for longer than `stale_seconds`.
    """

    def __init__(
        self, database: Database, *, look_seconds: float = 0.5, stale_seconds: float = 5.0, fail_closed: bool = True
    ) -> None:
        self._database = database
        self._look_seconds = look_seconds
        self._stale_seconds = stale_seconds
        self._fail_closed = fail_closed
        self._since = "0"
        self._looked = -stale_seconds
        self._pruned = 0.0
        self._held: dict[Handle, float] = {}
        self._coming: dict[Handle, tuple[float, float]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def notify(self, listener: Callable[[], None]) -> None:
        """Has `listener` called, on the event loop, whenever something more is revoked."""
        self._listeners.append(listener)

    def revoked(self, principal: Principal) -> bool:
        """Whether the credential that was shown, or its tenant, is revoked."""
        held, tenant = self._held, principal.tenant_id
        return bool(held) and (
            (tenant, Kind.API_KEY, principal.credential_id) in held
            or (tenant, Kind.SESSION, principal.credential_id) in held
            or (tenant, Kind.JTI, principal.token_id) in held
            or (tenant, Kind.TENANT, tenant) in held
        )

    async def current(self) -> bool:
        """Whether the last look is young enough: one of the checks of readiness."""
        return self._is_current()

    def _is_current(self) -> bool:
        return time.monotonic() - self._looked < self._stale_seconds

    def assure_current(self) -> None:
        """Raises `Unavailable` where it is not and that matters."""
        if self._fail_closed and not self._is_current():
            raise Unavailable("It cannot be told now which credentials are revoked.", code="database_unavailable")

    async def start(self) -> None:
        await self.look()
        self._tasks = [
            asyncio.create_task(self._look_regularly()),
            asyncio.create_task(listen(self._database, CHANNEL, lambda _: self._wake.set())),
        ]

    async def _look_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._wake.wait()
            self._wake.clear()
            await self.look()

    async def look(self) -> None:
        """Takes in what is new in the database, if it answers, and what has come into force."""
        try:
            await self._read()
        except (CodeAgentError, TimeoutError) as error:
            log.warning("revocations.not_read", error=type(error).__name__)
        except Exception:
            log.exception("revocations.failed")
        self._begin()

    async def _read(self) -> None:
        started = time.monotonic()
        async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
            rows = await self._database.fetch("SELECT * FROM read_revocations_v1($1)", self._since)
            for row in rows:
                if row["kind"] is not None:
                    handle = (row["tenant_id"], row["kind"], row["id"])
                    self._take(handle, started + row["begins_in"], started + row["ends_in"])
            self._since = rows[0]["horizon"]
            await self._lift()
        self._looked = started

    async def _lift(self) -> None:
        """A tenant may be resumed before its revocation has had its time. Those are few, and none for long."""
        for handle in [handle for handle in {*self._held, *self._coming} if handle[1] == Kind.TENANT]:
            resumed = "SELECT FROM tenants WHERE id = $1 AND suspended_at IS NULL"
            if await self._database.fetch(resumed, handle[0], tenant=handle[0]):
                self._held.pop(handle, None)
                self._coming.pop(handle, None)

    def _take(self, handle: Handle, begins: float, ends: float) -> None:
        earlier, later = self._coming.get(handle, (begins, ends))
        self._coming[handle] = min(begins, earlier), max(ends, later)

    def _begin(self) -> None:
        """What has come into force holds from now on. Rows are read more than once: what holds already is no news."""
        now = time.monotonic()
        begun = [handle for handle, (begins, _) in self._coming.items() if begins <= now]
        news = [handle for handle in begun if handle not in self._held]
        for handle in begun:
            self._held[handle] = max(self._coming.pop(handle)[1], self._held.get(handle, 0.0))
        if now - self._pruned > PRUNE_SECONDS:
            self._pruned = now
            self._held = {handle: ends for handle, ends in self._held.items() if ends > now}
        if news:
            for listener in self._listeners:
                listener()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def forget_ended(database: Database, most: int) -> int:
    """Removes at most `most` revocations that have had their time; returns how many."""
    rows = await database.write(
        """DELETE FROM revocations WHERE position IN (
               SELECT position FROM revocations WHERE expires_at < clock_timestamp()
               ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
           RETURNING position""",
        most,
    )
    return len(rows)
