"""Runs that some edge has folded already, for all edges of one Valkey (or Redis).

A snapshot saves a cold edge from folding a whole stream. It is never taken at its word: it is sealed for its tenant and
run, and `RunViews` takes it only where the log has its last event, and reads on from there. So what Valkey loses, mixes
up, brings back from yesterday or makes up costs a fold from the beginning, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from codeagent.edge.folding import MOST_BYTES, folded_by
from codeagent.edge.traffic.shared import redis_url
from codeagent.edge.views import Snapshot
from codeagent.encryption import NotOpened, SecretBox
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

ANSWER_SECONDS = 0.05
"""How long a request waits for Valkey at most; a fold of some hundred events takes about as long."""
AWAY_SECONDS = 1.0
"""How long nobody asks a Valkey that has not answered."""
KEPT_SECONDS = 3_600
MOST_WRITES = 20
_SNAPSHOT = TypeAdapter(Snapshot)


class SharedViews:
    """Snapshots in a Valkey at `url`, sealed by `box`. Does nothing worse than nothing, whatever Valkey does."""

    def __init__(self, url: str, box: SecretBox) -> None:
        self._box = box
        self._valkey: Redis = Redis.from_url(
            redis_url(url),
            socket_timeout=AWAY_SECONDS,
            socket_connect_timeout=AWAY_SECONDS,
            max_connections=2 * MOST_WRITES,
            retry=Retry(NoBackoff(), 0),
        )
        self._away_until = 0.0
        self._writes: set[asyncio.Task[None]] = set()

    async def get(self, tenant_id: str, run_id: str) -> Snapshot | None:
        if self._away_until > time.monotonic():
            return None
        place = _place(tenant_id, run_id)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # A part of it at most, so that nothing larger than what is written comes in.
                sealed = cast(bytes, await self._valkey.getrange(place, 0, MOST_BYTES))
        except (RedisError, OSError, TimeoutError) as error:
            self._away(error)
            return None
        try:
            return _SNAPSHOT.validate_json(self._box.open(sealed, place)) if sealed else None
        except (NotOpened, ValueError):
            log.warning("views.not_accepted", run_id=run_id)
            return None

    def keep(self, snapshot: Snapshot) -> None:
        if self._away_until > time.monotonic() or len(self._writes) >= MOST_WRITES:
            return
        place = _place(snapshot.view.tenant_id, snapshot.view.run_id)
        sealed = self._box.seal(_SNAPSHOT.dump_json(snapshot), place)
        if len(sealed) <= MOST_BYTES:
            writing = asyncio.create_task(self._write(place, sealed))
            self._writes.add(writing)
            writing.add_done_callback(self._writes.discard)

    async def _write(self, place: str, sealed: bytes) -> None:
        try:
            await self._valkey.set(place, sealed, ex=KEPT_SECONDS)
        except (RedisError, OSError) as error:
            self._away(error)

    def _away(self, error: Exception) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        log.warning("views.not_shared", error=type(error).__name__)

    async def stop(self) -> None:
        for writing in self._writes:
            writing.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._valkey.aclose()


def _place(tenant_id: str, run_id: str) -> str:
    return f"codeagent:run-view:{folded_by()}:{tenant_id}:{run_id}"
