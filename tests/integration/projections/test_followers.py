"""Who reads the whole log: several relays take turns, few connections suffice, and an idle one asks little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from codeagent import clock
from codeagent.eventlog.database import Connection, Database, Row
from codeagent.eventlog.follower import LogFollower
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.projections.agent_runs import AgentRunsProjector
from codeagent.projections.audit import AuditProjector
from codeagent.projections.runs import RunsProjector
from codeagent.projections.usage import UsageProjector
from codeagent.relay.projection_lags import measure_lags
from codeagent.telemetry.metrics import REGISTRY
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


async def test_rows_are_as_of_the_place_and_not_ahead_of_it(database: Database) -> None:
    """So that they can be held against the log: whoever takes over in the middle of a run knows of what comes later."""
    run_id, now = new_run_id(), clock.now()
    story = (submitted(run_id, "usr_a", "test/model"), events.RunStarted(run_id=run_id), events.RunCompleted())
    await write(database, [Happened(run_id, event, now.date()) for event in story])
    for version in (1, 2, 3):
        follower = RunsProjector(database, EventLog(database))
        async with asyncio.timeout(30):
            while not await follower.catch_up(1):
                await asyncio.sleep(0.005)
        [row] = await database.fetch("SELECT version FROM runs WHERE run_id = $1", run_id)
        assert row["version"] == version


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


async def made_anew(database: Database) -> None:
    """By hand: whoever keeps them begins at the beginning of the log."""
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM projections WHERE name = 'agent_runs'")
        await connection.execute("DELETE FROM agent_runs")


class Overtaken(AgentRunsProjector):
    """While it takes a page, somebody has its rows made anew."""

    operator: asyncio.Task[None] | None = None

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        self.operator = asyncio.create_task(made_anew(self._database))
        waiting = (
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM projections%'"
        )
        async with asyncio.timeout(20):
            while not self.operator.done() and not await self._database.fetch(waiting):
                await asyncio.sleep(0.005)
        await super().take(connection, page)


async def test_rows_that_are_made_anew_while_a_page_is_taken_are_all_there(database: Database) -> None:
    log, run_ids = EventLog(database), [new_run_id() for _ in range(2)]
    overtaken = Overtaken(database, log)
    for run_id, follower in zip(run_ids, (AgentRunsProjector(database, log), overtaken), strict=True):
        await write(database, [Happened(run_id, submitted(run_id, "usr_a", "test/model"))])
        await taken(follower)
    assert overtaken.operator is not None
    await overtaken.operator
    await taken(AgentRunsProjector(database, log))
    rows = await database.fetch("SELECT run_id FROM agent_runs")
    assert {row["run_id"] for row in rows} == set(run_ids)


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


class StandingStill(AuditProjector):
    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        raise RuntimeError("a bug")


def lag(name: str) -> float | None:
    return REGISTRY.get_sample_value("codeagent_projection_lag_seconds", {"projection": name})


@pytest.mark.parametrize("has_begun", [True, False])
async def test_one_that_stands_still_is_further_behind_at_every_look(database: Database, has_begun: bool) -> None:
    names, stuck = [AuditProjector.NAME], StandingStill(database, EventLog(database))
    if has_begun:
        await write(database, [Happened(new_run_id(), submitted(new_run_id(), "usr_a", "test/model"))])
        await taken(AuditProjector(database, EventLog(database)))
        await measure_lags(database, names)
        assert lag("audit") == 0
    await write(database, [Happened(new_run_id(), submitted(new_run_id(), "usr_a", "test/model"))])
    with pytest.raises(RuntimeError):
        await taken(stuck)
    await measure_lags(database, names)
    first = lag("audit")
    await measure_lags(database, names)
    second = lag("audit")
    assert first is not None
    assert second is not None
    assert 0 < first < second
    await taken(AuditProjector(database, EventLog(database)))
    await measure_lags(database, names)
    assert lag("audit") == 0
