"""Subscriptions: from any place, of a stream, a category or all; they wait, go on after an outage, and end when told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor, EventLog, cursor_of
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.subscription import Subscription, of_all, of_category, of_stream
from codeagent.messages.ids import run_stream
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step
from tests.services.postgres import PostgresCluster

_OF_A_CALL = """INSERT INTO events (stream_id, stream_version, event_id, event_type, schema_version, tenant_id, data,
    data_digest, metadata, occurred_at, leaf_hash)
    SELECT $1 || n, 1, gen_random_uuid(), 'call.ended', 1, $2, '{}', sha256('{}'), '{}', now(), sha256('x')
    FROM generate_series(1, $3::integer) n"""


async def take(subscription: Subscription[Cursor] | Subscription[int], many: int) -> list[tuple[str, int]]:
    async with asyncio.timeout(20):
        events = [await anext(subscription) for _ in range(many)]
    return [(event.stream_id, event.version) for event in events]


async def test_each_kind_goes_on_from_any_place(database: Database) -> None:
    log, runs = EventLog(database), [new_run(), new_run()]
    for run_id in runs:
        await commit_step(database, step(run_id, 0, [started(), started()]))
        await database.write(_OF_A_CALL, f"call-{run_id}-", TENANT, 2)
    of_runs = [(run_stream(run_id), version) for run_id in runs for version in (1, 2)]
    everything = await take(of_all(log, Cursor(), page=3), 8)
    assert [each for each in everything if each[0].startswith("run-")] == of_runs
    for begun in range(8):
        first = of_all(log, Cursor(), page=3)
        assert await take(first, begun) == everything[:begun]
        assert await take(of_all(log, first.cursor), 8 - begun) == everything[begun:]
    by_category = of_category(log, "run", Cursor(), page=1)
    assert await take(by_category, 3) == of_runs[:3]
    assert await take(of_category(log, "run", by_category.cursor), 1) == of_runs[3:]
    assert await take(of_stream(log, run_stream(runs[0]), after=1), 1) == of_runs[1:2]


async def test_from_now_on_nothing_older_comes_and_nothing_newer_is_missed(database: Database) -> None:
    log, old, new = EventLog(database), new_run(), new_run()
    await commit_step(database, step(old, 0, [started()]))
    subscription = of_all(log, await log.settled(), idle_seconds=0.01)
    waiting = asyncio.create_task(take(subscription, 1))
    await commit_step(database, step(new, 0, [started()]))
    assert await waiting == [(run_stream(new), 1)]


async def test_an_outage_is_waited_for_and_the_place_is_kept(
    any_postgres: PostgresCluster, database_url: str, database: Database
) -> None:
    log, runs = EventLog(database), [new_run(), new_run()]
    await commit_step(database, step(runs[0], 0, [started(), started()]))
    subscription = of_all(log, Cursor(), idle_seconds=0.01)
    assert await take(subscription, 2) == [(run_stream(runs[0]), 1), (run_stream(runs[0]), 2)]
    name = database_url.rsplit("/", 1)[1]
    with structlog.testing.capture_logs() as lines:
        any_postgres.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        any_postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        waiting = asyncio.create_task(take(subscription, 1))
        async with asyncio.timeout(20):
            while not any(line["event"] == "subscription.waits" for line in lines):
                await asyncio.sleep(0.01)
        any_postgres.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await commit_step(database, step(runs[1], 0, [started()]))
        assert await waiting == [(run_stream(runs[1]), 1)]


async def test_it_ends_at_once_when_it_is_closed_and_keeps_its_place(database: Database) -> None:
    log, run_id = EventLog(database), new_run()
    await commit_step(database, step(run_id, 0, [started(), started()]))
    subscription = of_all(log, Cursor())
    first = await anext(subscription)
    subscription.close()
    assert [event async for event in subscription] == []
    assert subscription.cursor == cursor_of(first)
    idle = of_all(log, await log.settled(), idle_seconds=3600)
    waiting = asyncio.create_task(anext(idle, None))
    await asyncio.sleep(0.05)
    idle.close()
    async with asyncio.timeout(20):
        assert await waiting is None


async def test_it_holds_a_page_at_most(database: Database) -> None:
    asked: list[int] = []

    async def read(after: int, most: int) -> Sequence[StoredEvent]:
        asked.append(after)
        return await EventLog(database).read_stream(run_stream(run_id), after, most)

    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started() for _ in range(7)]))
    subscription = Subscription(read, lambda event: event.version, 0, page=3, idle_seconds=0.01)
    for version in range(1, 8):
        assert (await anext(subscription)).version == version
        assert asked == [0, 3, 6][: (version + 2) // 3]


@pytest.mark.parametrize("category", ["run", "none"])
async def test_a_category_costs_what_it_has_and_not_what_the_log_has(database: Database, category: str) -> None:
    await database.write(_OF_A_CALL, "call-", TENANT, 20_000)
    await commit_step(database, step(new_run(), 0, [started()]))
    await database.write("ANALYZE events")
    found = await EventLog(database).read_category(category, Cursor())
    assert len(found) == (category == "run")
    rows = await database.fetch(
        """EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) SELECT * FROM events
           WHERE split_part(stream_id, '-', 1) = $1 AND (transaction_id, global_position) > ('0'::xid8, 0)
           ORDER BY transaction_id, global_position LIMIT 500""",
        category,
    )
    plan = "\n".join(row[0] for row in rows)
    assert "events_of_category" in plan, plan
