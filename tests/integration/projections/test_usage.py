"""Usage: folded from the log once, whatever happens to who folds it, and the same however it is added up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeagent.errors import Rejected
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages import events
from codeagent.messages.calls import CallEnded, ModelAttempt
from codeagent.messages.conversation import Usage
from codeagent.messages.values import Outcome
from codeagent.projections.tally import Tally
from codeagent.projections.usage import UsageProjector
from codeagent.projections.usage_report import Dimension, UsageQuery, UsageReport, usage_of_run, usage_report
from tests.integration.projections.logs import (
    DAY,
    TENANT,
    Happened,
    append,
    call,
    caught_up,
    execution,
    new_run_id,
    submitted,
    write,
)

TABLES = ("usage_runs", "usage_by_run", "usage_by_day")
ALL_DAYS = (DAY - timedelta(days=200), DAY + timedelta(days=199))


async def fold(database: Database, most: int = 500) -> None:
    await caught_up(database, UsageProjector(database, EventLog(database)), most)


async def rows_of(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted((tuple(row) for row in await database.fetch(f"SELECT * FROM {table}")), key=repr)
        for table in TABLES
    }


async def forget(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(f"TRUNCATE {', '.join(TABLES)}")
        await connection.execute("DELETE FROM projections WHERE name = 'usage'")


async def report(
    database: Database, *group_by: Dimension, after: str | None = None, limit: int = 200, **only: str
) -> UsageReport:
    query = UsageQuery(*ALL_DAYS, group_by or (Dimension.DAY,), **only)
    return await usage_report(database, TENANT, query, after=after, limit=limit)


def one_run(run_id: str) -> list[Happened]:
    return [
        Happened(run_id, submitted(run_id, "usr_1", "test/model")),
        Happened(run_id, call(run_id, usage=Usage(input_tokens=100, output_tokens=10, cache_read_tokens=40))),
        Happened(run_id, execution(run_id, 1.25)),
        Happened(run_id, call(run_id, "test/other", cost=None, outcome=Outcome.FAILED), DAY + timedelta(days=1)),
        Happened(run_id, events.RunFailed(status_reason="provider_error"), DAY + timedelta(days=1)),
    ]


async def test_attempts_of_a_call_count_for_the_models_that_were_asked_and_the_call_once(database: Database) -> None:
    run_id, used = new_run_id(), Usage(input_tokens=100, output_tokens=10)
    cut = ModelAttempt(
        provider="test", model="first", reason="timeout", usage=used, cost_usd=Decimal("0.07"), seconds=1.0
    )
    fine = ModelAttempt(provider="test", model="second", usage=used, cost_usd=Decimal("0.03"), seconds=1.0)
    ended = call(run_id, "test/second", used + used + used, attempts=(cut, cut, fine))
    await write(database, [Happened(run_id, submitted(run_id, "usr_1", "test/first")), Happened(run_id, ended)])
    await fold(database)
    found = {row.keys[0]: row.tally for row in (await usage_of_run(database, TENANT, run_id)).models}
    assert {model: (tally.calls, tally.input_tokens, tally.cost_usd) for model, tally in found.items()} == {
        "test/first": (0, 200, Decimal("0.14")),
        "test/second": (1, 100, Decimal("0.03")),
    }
    [spent] = await database.fetch("SELECT cost_usd FROM usage_runs WHERE run_id = $1", run_id)
    assert spent["cost_usd"] == Decimal("0.17")


async def test_a_run_is_counted_by_model_and_day_failed_calls_included(database: Database) -> None:
    run_id = new_run_id()
    await write(database, one_run(run_id))
    await fold(database)
    usage = await usage_of_run(database, TENANT, run_id)
    assert usage.settled
    assert {row.keys: row.tally for row in usage.models} == {
        ("test/model",): Tally(
            calls=1,
            input_tokens=100,
            output_tokens=10,
            cache_read_tokens=40,
            cost_usd=Decimal("0.10"),
            sandbox_ms=1_250,
            commands=1,
            memory_mib_ms=1_024 * 1_250,
            runs_submitted=1,
            runs_failed=1,
        ),
        ("test/other",): Tally(calls=1, unpriced_calls=1, input_tokens=100, output_tokens=10),
    }
    days = await report(database)
    assert [row.keys for row in days.rows] == [("2026-11-23",), ("2026-11-24",)]
    assert [row.tally.calls for row in days.rows] == [1, 1]
    assert (await report(database, Dimension.PROVIDER, Dimension.PRINCIPAL)).rows[0].keys == ("test", "usr_1")
    assert (await report(database, Dimension.PROJECT, Dimension.SESSION)).rows[0].keys == ("", "")


async def test_a_bill_that_comes_after_the_end_of_a_run_is_still_its_principals(database: Database) -> None:
    run_id = new_run_id()
    await write(database, one_run(run_id))
    await fold(database)
    await write(database, [Happened(run_id, call(run_id, cost="7"), DAY + timedelta(days=9))])
    await fold(database)
    late = await report(database, Dimension.DAY, Dimension.PRINCIPAL)
    assert (late.rows[-1].keys, late.rows[-1].tally.cost_usd) == (("2026-12-02", "usr_1"), Decimal(7))


class Dies(UsageProjector):
    """Fails after it has written its rows, before its place is committed."""

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        await super().take(connection, page)
        raise RuntimeError


async def test_a_page_is_added_once_whoever_dies_and_however_many_fold(database: Database) -> None:
    await write(database, [happened for _ in range(4) for happened in one_run(new_run_id())])
    log = EventLog(database)
    async with asyncio.timeout(20):
        while not await log.read_all(Cursor(), 1):
            await asyncio.sleep(0.005)
    with pytest.raises(RuntimeError):
        await Dies(database, log).catch_up()
    assert (await report(database)).rows == []
    await asyncio.gather(*(fold(database, 3) for _ in range(4)))
    once = await rows_of(database)
    assert (await report(database)).totals.runs_submitted == 4
    await forget(database)
    await fold(database)
    assert await rows_of(database) == once, "built anew it is the same"


async def test_a_commit_that_comes_late_is_not_skipped(database_url: str, database: Database) -> None:
    early, late = new_run_id(), new_run_id()
    slow = await asyncpg.connect(database_url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("SELECT pg_current_xact_id()")
    await append(database, Happened(early, submitted(early, "usr_1", "m")).stored(1))
    projector = UsageProjector(database, EventLog(database))
    assert await projector.catch_up() == 0, "what might still commit before it is waited for"
    stored = Happened(late, submitted(late, "usr_2", "m")).stored(1)
    await slow.execute(
        """INSERT INTO events (stream_id, stream_version, event_id, event_type, schema_version, tenant_id, data,
                               data_digest, metadata, occurred_at, leaf_hash)
           VALUES ($1, 1, $2, $3, 1, $4, $5, $6, jsonb_build_object('runid', $7::text), $8, $9)""",
        stored.stream_id, stored.id, stored.type, stored.tenant_id, stored.data, stored.data_digest, late,
        stored.occurred_at, stored.leaf_hash,
    )  # fmt: skip
    await transaction.commit()
    await slow.close()
    await fold(database)
    assert [row.keys for row in (await report(database, Dimension.PRINCIPAL)).rows] == [("usr_1",), ("usr_2",)]


MODELS = ("a/1", "a/2", "b/1")
COSTS = st.none() | st.integers(0, 10**9).map(lambda n: f"{n / 10**9:.9f}")


@st.composite
def run_events(draw: st.DrawFn) -> list[Happened]:
    """One run: submitted or not, some calls and commands over some days, ended or not."""
    run_id, day = new_run_id(), DAY + timedelta(days=draw(st.integers(0, 5)))
    log = []
    if draw(st.integers(0, 9)):
        log.append(
            Happened(
                run_id, submitted(run_id, draw(st.sampled_from(["usr_1", "usr_2"])), draw(st.sampled_from(MODELS))), day
            )
        )
    for _ in range(draw(st.integers(0, 4))):
        day += timedelta(days=draw(st.integers(0, 1)))
        numbers = draw(st.tuples(*[st.integers(0, 10**6)] * 4))
        usage = Usage(
            input_tokens=numbers[0],
            output_tokens=numbers[1],
            cache_read_tokens=numbers[2],
            cache_write_tokens=numbers[3],
        )
        outcome = draw(st.sampled_from(list(Outcome)))
        log.append(Happened(run_id, call(run_id, draw(st.sampled_from(MODELS)), usage, draw(COSTS), outcome), day))
        log.append(Happened(run_id, execution(run_id, draw(st.floats(0, 1e5))), day))
    ends = [events.RunCompleted(), events.RunFailed(), events.RunCanceled(), events.RunRejected(), None]
    end = draw(st.sampled_from(ends))
    return log if end is None else [*log, Happened(run_id, end, day)]


def added(tallies: Sequence[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def plainly(log: Sequence[Happened]) -> Tally:
    """The sums as somebody would make them who has never seen the projection."""
    calls = [each.event for each in log if isinstance(each.event, CallEnded)]
    commands = [each.event for each in log if isinstance(each.event, events.ExecEnded)]
    names = [each.event.NAME for each in log]
    return Tally(
        calls=len(calls),
        unpriced_calls=sum(c.cost_usd is None and c.usage.input_tokens + c.usage.output_tokens > 0 for c in calls),
        input_tokens=sum(c.usage.input_tokens for c in calls),
        output_tokens=sum(c.usage.output_tokens for c in calls),
        cache_read_tokens=sum(c.usage.cache_read_tokens for c in calls),
        cache_write_tokens=sum(c.usage.cache_write_tokens for c in calls),
        cost_usd=sum((c.cost_usd for c in calls if c.cost_usd is not None), Decimal(0)),
        sandbox_ms=sum(round(c.wall_seconds * 1_000) for c in commands),
        commands=sum(c.wall_seconds > 0 for c in commands),
        cpu_ms=sum(round(c.cpu_seconds * 1_000) for c in commands),
        memory_mib_ms=sum(1_024 * round(c.wall_seconds * 1_000) for c in commands),
        **{
            f"runs_{word}": names.count(f"run.{word}")
            for word in ("submitted", "completed", "failed", "canceled", "rejected")
        },
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(run_events(), max_size=6), most=st.integers(1, 12))
def test_the_sum_over_days_is_the_sum_over_runs_and_that_of_the_log(
    newest_database_url: str, runs: list[list[Happened]], most: int
) -> None:
    asyncio.run(_sums_agree(newest_database_url, [happened for run in runs for happened in run], most))


async def _sums_agree(url: str, log: list[Happened], most: int) -> None:
    database = Database(url, connections=3)
    try:
        await forget(database)
        await database.write("TRUNCATE events RESTART IDENTITY")
        await write(database, log)
        if log:
            await fold(database, most)
        wanted = plainly(log)
        by_run = [await usage_of_run(database, TENANT, run_id) for run_id in {happened.run_id for happened in log}]
        assert added([row.tally for usage in by_run for row in usage.models]) == wanted
        for dimensions in (
            (Dimension.DAY,),
            (Dimension.MODEL, Dimension.PRINCIPAL),
            (Dimension.DAY, Dimension.SESSION),
        ):
            found = await report(database, *dimensions)
            assert added([row.tally for row in found.rows]) == wanted
            assert found.totals == wanted
    finally:
        await database.close()


async def test_pages_follow_each_other_without_gap_or_repeat(database: Database) -> None:
    runs = [(new_run_id(), DAY + timedelta(days=number)) for number in range(7)]
    await write(database, [Happened(run_id, submitted(run_id, "usr_1", "m"), day) for run_id, day in runs])
    await fold(database)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await report(database, after=cursor, limit=3)
        seen += [row.keys[0] for row in page.rows]
        assert page.totals.runs_submitted == 7
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [(DAY + timedelta(days=number)).isoformat() for number in range(7)]
    for bad in ("x", "W10", "WzFd", "WyJhIiwgImIiXQ"):
        with pytest.raises(Rejected):
            await report(database, after=bad)


async def test_only_what_is_asked_for_is_added_up(database: Database) -> None:
    one, other = new_run_id(), new_run_id()
    await write(
        database,
        [
            Happened(one, submitted(one, "usr_1", "a/1")),
            Happened(one, call(one, "a/1", cost="1")),
            Happened(other, submitted(other, "usr_2", "a/1")),
            Happened(other, call(other, "b/1", cost="2"), DAY + timedelta(days=1)),
            Happened(other, call(other, "b/1", cost="4"), date(2030, 1, 1)),
        ],
    )
    await fold(database)
    assert (await report(database)).totals.cost_usd == 3, "days beyond the range are not asked for"
    assert (await report(database, model="b/1")).totals.cost_usd == 2
    assert (await report(database, principal_id="usr_1")).totals.cost_usd == 1
    assert (await report(database, project_id="prj_1")).totals == Tally()
    assert (await report(database, session_id="ses_1")).totals == Tally()
