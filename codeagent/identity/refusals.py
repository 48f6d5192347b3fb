"""Refusals of known callers, as facts that cannot fill the log: the first of a kind at once, what follows it counted
and told once a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from codeagent import clock
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.audit_events import AccessRefused
from codeagent.messages.ids import access_stream, typed_id
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_KINDS = 1_000
"""Kinds kept in memory. What is beyond is in the logs and the metrics of the request alone."""
_LOOK_SECONDS = 1.0

Reason = Literal["insufficient_scope", "foreign_address", "login_throttled", "wrong_secret"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What counts as the same. `actor_type` is that of a `Principal`."""

    tenant_id: str
    actor_type: str
    actor_id: str
    credential_id: str
    reason: Reason


Refuse = Callable[[Refusal, str | None], None]
"""Notes a refusal, and the client's address; costs nothing but memory."""


@dataclass(slots=True)
class _Count:
    address: str | None
    due: float
    """When what has been counted is told, by the monotonic clock."""
    first_at: datetime
    last_at: datetime
    times: int = 0


class Refusals:
    """Writes behind. What a crash loses is the last minute's counts."""

    def __init__(self, database: Database, *, every_seconds: float = 60.0, most: int = MOST_KINDS) -> None:
        self._control = ControlPlane(database)
        self._every = every_seconds
        self._most = most
        self._counts: dict[Refusal, _Count] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def note(self, refusal: Refusal, address: str | None) -> None:
        now = clock.now()
        count = self._counts.get(refusal)
        if count is None:
            if len(self._counts) >= self._most:
                return
            count = self._counts[refusal] = _Count(address, 0.0, now, now)
            self._wake.set()
        if count.times == 0:
            count.first_at, count.address = now, address
        count.times += 1
        count.last_at = now

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write_regularly())

    async def _write_regularly(self) -> None:
        while not self._stopping:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._write(time.monotonic())

    async def _write(self, now: float) -> None:
        """Tells what is due by `now`, and forgets what has not come again."""
        for refusal, count in [item for item in self._counts.items() if item[1].due <= now]:
            if count.times == 0:
                del self._counts[refusal]
                continue
            told, count.times, count.due = count.times, 0, time.monotonic() + self._every
            try:
                await self._record(refusal, count, told)
            except CodeAgentError as error:
                count.times += told
                log.warning("refusals.not_written", error=error.detail)
                return
            except Exception:
                log.exception("refusals.failed")

    async def _record(self, refusal: Refusal, count: _Count, times: int) -> None:
        author = Author(
            refusal.tenant_id, refusal.actor_type, refusal.actor_id, clock.new_uuid(), address=count.address
        )
        fact = AccessRefused(
            principal=refusal.actor_id,
            credential_id=refusal.credential_id,
            reason=refusal.reason,
            times=times,
            first_at=count.first_at,
            last_at=count.last_at,
        )
        async with self._control.change(author) as change:
            await change.record(access_stream(typed_id("acc", clock.new_uuid())), 1, fact)

    async def stop(self) -> None:
        """Writes what is left."""
        if self._task is not None:
            self._stopping = True
            self._wake.set()
            await self._task  # to its end: a write that is cut off could be neither counted nor repeated
            await self._write(float("inf"))
