"""Remembers for a moment which artifacts are there: a burst of runs on one archive asks the disk once."""

from __future__ import annotations

import time
from collections import OrderedDict

from codeagent.artifacts.store import ArtifactStore

MOST_KNOWN = 10_000


class KnownArtifacts:
    """Only presence is remembered, for `seconds`: an artifact never changes, and a missing one may come any moment.
    One that is removed meanwhile is missed by whoever reads it."""

    def __init__(self, store: ArtifactStore, *, seconds: float = 5.0) -> None:
        self._store = store
        self._seconds = seconds
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def exists(self, tenant_id: str, digest: str) -> bool:
        key, now = (tenant_id, digest), time.monotonic()
        if self._until.get(key, 0.0) > now:
            return True
        found = await self._store.exists(tenant_id, digest)
        if found:
            self._until[key] = now + self._seconds
            self._until.move_to_end(key)
            if len(self._until) > MOST_KNOWN:
                self._until.popitem(last=False)
        return found
