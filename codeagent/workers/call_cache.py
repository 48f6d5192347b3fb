"""The response cache as model calls use it: for runs whose version wants it, and never in the way of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from codeagent.messages.events import RunSubmitted
from codeagent.providers.protocol import ModelReply, ModelRequest
from codeagent.response_cache.cache import ResponseCache
from codeagent.response_cache.key import reply_key
from codeagent.response_cache.reply import is_good
from codeagent.response_cache.slot import Slot
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

PATIENCE_SECONDS = 2.0
"""For how long a call waits for the database to find or to keep a reply."""


class CallCache:
    """Without a `cache` nothing is kept. `settings_digest` tells of `<provider>/<name>` what its provider's settings
    add to a request."""

    def __init__(
        self, cache: ResponseCache | None = None, settings_digest: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._cache = cache
        self._settings_digest = settings_digest

    def slot(self, tenant_id: str, run: RunSubmitted | None, label: str, document: bytes) -> Slot | None:
        """Where the reply of the model `label` to the request `document` is kept; None where the run's version does
        not want that."""
        policy = None if run is None or run.definition is None else run.definition.cache
        if self._cache is None or run is None or policy is None:
            return None
        key = reply_key(tenant_id, label, self._settings_digest(label), document)
        return Slot(tenant_id, key, timedelta(seconds=policy.ttl_seconds), run.principal)

    async def recall(self, slot: Slot | None, request: ModelRequest) -> ModelReply | None:
        """What was kept, as if the model had replied for nothing. None where the model is to be asked, which it is
        too where the cache cannot be."""
        if slot is None or self._cache is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply = await self._cache.find(slot, request)
        except Exception as error:
            log.warning("response_cache.not_searched", error=type(error).__name__)
            metrics.RESPONSE_CACHE_LOOKUPS.labels("error").inc()
            return None
        metrics.RESPONSE_CACHE_LOOKUPS.labels("miss" if reply is None else "hit").inc()
        return reply

    async def keep(self, slot: Slot | None, request: ModelRequest, reply: ModelReply) -> None:
        """A reply that others may be given, where there is room for it."""
        if slot is None or self._cache is None:
            return
        if not is_good(request, reply):
            metrics.RESPONSE_CACHE_STORES.labels("not_good").inc()
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                kept = await self._cache.keep(slot, reply)
        except Exception as error:
            log.warning("response_cache.not_kept", error=type(error).__name__)
            metrics.RESPONSE_CACHE_STORES.labels("error").inc()
            return
        metrics.RESPONSE_CACHE_STORES.labels("kept" if kept else "too_long").inc()
