"""What a look at a run costs an edge that has never seen it: folding its stream, or taking another edge's fold."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from statistics import median

from benchmarks.ground import Ground
from codeagent.edge.shared_views import SharedViews
from codeagent.edge.views import RunViews
from codeagent.encryption import SecretBox
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step
from tests.services.valkey import ValkeyServer

EVENTS = 500
LOOKS = 30


def measure(ground: Ground) -> dict[str, float]:
    """Milliseconds of one look at a run of `EVENTS` events, with and without Valkey, and how much quicker it is."""
    valkey = ValkeyServer()
    try:
        valkey.start()
        return asyncio.run(_measure(ground.settings.database_url.get_secret_value(), valkey.url))
    finally:
        valkey.close()


async def _measure(database_url: str, valkey_url: str) -> dict[str, float]:
    walled, writer = Database(database_url, role=EDGE_ROLE), Database(database_url)
    shared = SharedViews(valkey_url, SecretBox({"bench": os.urandom(32)}))
    run_id, log, submissions = new_run(), TenantLog(walled), SubmissionLedger(walled)
    try:
        await commit_step(writer, step(run_id, 0, [started()] * EVENTS))
        await RunViews(log, submissions, shared).get(TENANT, run_id)
        while await shared.get(TENANT, run_id) is None:
            await asyncio.sleep(0.01)
        folded = await _median_ms(lambda: RunViews(log, submissions).get(TENANT, run_id))
        taken = await _median_ms(lambda: RunViews(log, submissions, shared).get(TENANT, run_id))
    finally:
        await shared.stop()
        await walled.close()
        await writer.close()
    return {
        f"ms a cold look, {EVENTS} events": folded,
        "ms a cold look, shared": taken,
        "ratio of cold looks": folded / taken,
    }


async def _median_ms(look: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        await look()
        taken.append((time.perf_counter() - begun) * 1_000)
    return median(taken)
