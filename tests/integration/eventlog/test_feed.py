"""A tenant's feed page by page: what was asked for, in one order for all, and nothing skipped."""

from __future__ import annotations

import asyncpg
import pytest

from codeagent.eventlog import tenants
from codeagent.eventlog.database import Database
from codeagent.eventlog.feed import Wanted
from codeagent.eventlog.log import Cursor
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import TenantLog
from codeagent.messages.events import RunCompleted
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step

_OF_A_CALL = """INSERT INTO events (stream_id, stream_version, event_id, event_type, schema_version, tenant_id, data,
    data_digest, metadata, occurred_at, leaf_hash)
    VALUES ($1, 1, gen_random_uuid(), 'run.started', 1, $2, '{}', sha256('{}'), '{}', now(), sha256('x'))"""


async def drained(log: TenantLog, limit: int, wanted: Wanted) -> list[StoredEvent]:
    """All events to the end of the feed."""
    events: list[StoredEvent] = []
    cursor, more = Cursor(), True
    while more:
        page = await log.feed(TENANT, cursor, limit, wanted)
        events += page.events
        cursor, more = page.cursor, page.more
    return events


async def three_runs(database: Database) -> list[str]:
    runs = [new_run() for _ in range(3)]
    for version in range(4):
        for run_id in runs:
            fact = RunCompleted() if version == 3 else started()
            await commit_step(database, step(run_id, version, [fact]))
    return runs


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
@pytest.mark.parametrize("scanned", [1, 3, 2_000])
async def test_every_event_that_is_wanted_comes_once_in_the_order_of_commits(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: int, scanned: int
) -> None:
    monkeypatch.setattr(tenants, "MOST_SCANNED", scanned)
    monkeypatch.setattr("codeagent.eventlog.feed.MOST_SCANNED", scanned)
    runs, log = await three_runs(database), TenantLog(database)
    everything = [(run_id, version) for version in range(1, 5) for run_id in runs]
    for wanted, expected in (
        (Wanted(), everything),
        (Wanted(run_id=runs[1]), [each for each in everything if each[0] == runs[1]]),
        (Wanted(types=("run.completed",)), [each for each in everything if each[1] == 4]),
        (Wanted(types=("run.completed",), run_id=runs[2]), [(runs[2], 4)]),
        (Wanted(types=("run.failed",)), []),
    ):
        events = await drained(log, limit, wanted)
        assert [(event.metadata["runid"], event.version) for event in events] == expected


async def test_only_streams_of_runs_are_in_it(database: Database) -> None:
    await database.write(_OF_A_CALL, "call-1", TENANT)
    await database.write(_OF_A_CALL, "exec-1", TENANT)
    await database.write(_OF_A_CALL, "project-1", TENANT)
    [run_id, *_] = await three_runs(database)
    events = await drained(TenantLog(database), 100, Wanted())
    assert len(events) == 12
    assert events[0].stream_id == f"run-{run_id}"


async def test_what_was_looked_at_in_vain_is_not_looked_at_again(database: Database) -> None:
    await three_runs(database)
    page = await TenantLog(database).feed(TENANT, Cursor(), 10, Wanted(types=("run.failed",)))
    assert (page.events, page.more) == ([], False)
    assert page.cursor == page.horizon.cursor
    later = await TenantLog(database).feed(TENANT, page.cursor)
    assert later.events == []
    await commit_step(database, step(new_run(), 0, [started()]))
    assert len((await TenantLog(database).feed(TENANT, page.cursor)).events) == 1


async def test_what_an_open_transaction_holds_back_is_not_passed(database_url: str, database: Database) -> None:
    log, slow = TenantLog(database), await asyncpg.connect(database_url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("SELECT pg_current_xact_id()")
    await commit_step(database, step(new_run(), 0, [started()]))
    page = await log.feed(TENANT, Cursor())
    assert (page.events, page.more) == ([], False)
    assert page.horizon.settled < page.horizon.newest
    await transaction.rollback()
    assert len((await log.feed(TENANT, page.cursor)).events) == 1
    await slow.close()
