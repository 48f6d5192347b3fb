"""Who reads the whole log: several relays take turns, few connections suffice, and an idle one asks little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from codeagent import clock
from codeagent.eventlog.database import Connection, Database, Row
from codeagent.eventlog.follower import LogFollower
from codeagent.eventlog.log import EventLog
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.projections.audit import AuditProjector
from codeagent.projections.runs import RunsProjector
from codeagent.projections.usage import UsageProjector
from codeagent.webhooks.dispatcher import DeliveryDispatcher
from tests.integration.projections.logs import Happened, append, new_run_id, submitted, write


async def taken(follower: LogFollower) -> None:
    """Until it has taken a page, whatever the server's own transactions hold back for a moment."""
    async with asyncio.timeout(30):
        while not await follower.catch_up():
            await asyncio.sleep(0.005)


def followers(database: Database) -> list[LogFollower]:
    log = EventLog(database)
    return [
        RunsProjector(database, log),
        UsageProjector(database, log),
        AuditProjector(database, log),
        DeliveryDispatcher(database, log, lambda: None),
    ]


async def test_relays_that_take_turns_miss_nothing_of_a_run(database: Database) -> None:
    one, other = (RunsProjector(database, EventLog(database)) for _ in range(2))
    run_id, now = new_run_id(), clock.now()
    story: Sequence[tuple[LogFollower, Event]] = (
        (one, submitted(run_id, "usr_a", "test/model")),
        (other, events.RunStarted(run_id=run_id)),
        (one, events.RunCanceled(run_id=run_id, reason="requested")),
    )
    for version, (follower, event) in enumerate(story, 1):
        await append(database, Happened(run_id, event, now.date()).stored(version))
        await taken(follower)
    [row] = await database.fetch("SELECT version, status FROM runs WHERE run_id = $1", run_id)
    assert dict(row) == {"version": 3, "status": "canceled"}


async def test_all_of_them_work_over_a_pool_of_two_connections(database: Database, database_url: str) -> None:
    for _ in range(20):
        run_id = new_run_id()
        await write(database, [Happened(run_id, submitted(run_id, "usr_a", "test/model"))])
    small = Database(database_url, connections=2, timeout_seconds=5)
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(*(taken(follower) for follower in followers(small)))
    finally:
        await small.close()


class Counted(Database):
    """Counts statements outside of transactions, and transactions."""

    statements = transactions = 0

    async def fetch(self, query: str, *arguments: Any, tenant: str = "") -> Sequence[Row]:
        self.statements += 1
        return await super().fetch(query, *arguments, tenant=tenant)

    @asynccontextmanager
    async def transaction(self, tenant: str = "") -> AsyncIterator[Connection]:
        self.transactions += 1
        async with super().transaction(tenant) as connection:
            yield connection


async def test_one_with_nothing_to_do_asks_one_question_a_look(database: Database, database_url: str) -> None:
    run_id = new_run_id()
    await write(database, [Happened(run_id, submitted(run_id, "usr_a", "test/model"))])
    counted = Counted(database_url, connections=2)
    try:
        for follower in followers(counted):
            await taken(follower)
            counted.statements = counted.transactions = 0
            assert await follower.catch_up() == 0
            assert (counted.statements, counted.transactions) == (1, 0), follower.NAME
    finally:
        await counted.close()
