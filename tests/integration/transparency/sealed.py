"""Logs of a few events that are sealed, for tests of what proves them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.messages import events
from codeagent.subjects.key import SubjectKey
from codeagent.transparency import tables
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import SigningKey
from codeagent.transparency.sealer import Sealer
from tests.integration.projections.logs import TENANT, Happened, new_run_id, submitted, write_at_once

ORIGIN = "log.example/audit"
KEY, NEXT_KEY, FOREIGN_KEY = (SigningKey(ORIGIN, bytes([number] * 32)) for number in range(3))
KEYS = LogKeys(ORIGIN, (KEY,), (KEY.verifier,))
SUBJECT_KEY = SubjectKey("sk_0f1e2d3c4b5a69788796a5b4c3d2e1f0", bytes(range(32)))
"""For what is personal in them: the task of a run, with which each begins."""
LEAVES = """SELECT e.leaf_hash FROM audit_leaves l JOIN events e USING (global_position) ORDER BY l.leaf_index"""


def run_of(
    count: int, tenant: str = TENANT, *, model: str = "test/model", key: SubjectKey | None = None
) -> list[Happened]:
    """A run's first `count` events."""
    run_id, day = new_run_id(), clock.now().date()
    steps = [events.RunStarted(attempt=number) for number in range(1, count)]
    told = (submitted(run_id, "usr_a", model), *steps)
    return [Happened(run_id, event, day, tenant, key=key) for event in told]


async def append_runs(database: Database, *counts: int, tenant: str = TENANT, key: SubjectKey | None = None) -> None:
    """One run each with so many events, each in a transaction of its own."""
    for count in counts:
        await write_at_once(database, run_of(count, tenant, key=key))


async def seal_all(database: Database, sealer: Sealer) -> None:
    """Until every event is sealed, whatever the server's own transactions hold back for a moment."""
    async with asyncio.timeout(30):
        while await missing(database):
            if not await sealer.seal():
                await asyncio.sleep(0.005)


async def missing(database: Database) -> int:
    """How many events are no entries."""
    [row] = await database.fetch(
        "SELECT count(*) FROM events e WHERE NOT EXISTS "
        "(SELECT FROM audit_leaves l WHERE l.global_position = e.global_position)"
    )
    count: int = row[0]
    return count


async def newest(database: Database) -> tables.StoredCheckpoint:
    found = await tables.newest_checkpoint(database)
    assert found is not None
    return found


async def leaves(database: Database) -> Sequence[bytes]:
    """The leaf hashes of the entries in order, as the events have them."""
    return [row[0] for row in await database.fetch(LEAVES)]
