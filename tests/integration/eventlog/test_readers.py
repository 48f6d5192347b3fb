"""Readers across streams never miss a commit, however late it comes."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest

from codeagent.errors import Rejected
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor, EventLog, cursor_of
from tests.integration.eventlog.steps import commit_step, new_run, started, step

_INSERT = """INSERT INTO events (stream_id, stream_version, event_id, event_type, schema_version, tenant_id, data,
    data_digest, metadata, occurred_at, leaf_hash)
    VALUES ($1, 1, gen_random_uuid(), 'run.started', 1, 't', '{}', sha256('{}'), '{}', now(), sha256('x'))"""


async def drain(log: EventLog, cursor: Cursor) -> tuple[list[str], Cursor]:
    found: list[str] = []
    while page := await log.read_all(cursor, 2):
        found += [event.stream_id for event in page]
        cursor = cursor_of(page[-1])
    return found, cursor


async def test_an_open_transaction_with_a_lower_position_is_waited_for(database_url: str, database: Database) -> None:
    log = EventLog(database)
    slow = await asyncpg.connect(database_url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute(_INSERT, "slow")
    await database.write(_INSERT, "fast")
    found, cursor = await drain(log, Cursor())
    assert found == []
    await transaction.commit()
    found, cursor = await drain(log, cursor)
    assert found == ["slow", "fast"]
    await slow.close()


async def test_a_lower_transaction_that_takes_a_higher_position_is_not_skipped(
    database_url: str, database: Database
) -> None:
    log = EventLog(database)
    slow = await asyncpg.connect(database_url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("SELECT pg_current_xact_id()")
    await database.write(_INSERT, "first by position")
    await slow.execute(_INSERT, "first by transaction")
    _, cursor = await drain(log, Cursor())
    await transaction.commit()
    found, _ = await drain(log, cursor)
    assert sorted(found) == ["first by position", "first by transaction"]
    await slow.close()


async def test_an_aborted_transaction_leaves_no_gap_to_wait_for(database_url: str, database: Database) -> None:
    doomed = await asyncpg.connect(database_url)
    transaction = doomed.transaction()
    await transaction.start()
    await doomed.execute(_INSERT, "doomed")
    await database.write(_INSERT, "kept")
    await transaction.rollback()
    found, _ = await drain(EventLog(database), Cursor())
    assert found == ["kept"]
    await doomed.close()


async def test_transactions_are_read_in_the_order_of_their_numbers_however_many_digits_they_have(
    database: Database,
) -> None:
    numbered = _INSERT.replace("(stream_id,", "(transaction_id, stream_id,").replace(
        "VALUES (", "VALUES ($2::text::xid8, "
    )
    numbers = ["9", "10", "99", "100", "101"]
    for number in numbers:
        await database.write(numbered, number, number)
    found, _ = await drain(EventLog(database), Cursor())
    assert found == numbers


async def test_readers_beside_writers_see_every_event_once(database: Database) -> None:
    log, written = EventLog(database), [new_run() for _ in range(60)]
    total: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def write(runs: list[str]) -> None:
        for run_id in runs:
            await commit_step(database, step(run_id, 0, [started() for _ in range(random.randint(1, 3))]))
            await asyncio.sleep(random.random() / 200)

    async def read() -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        cursor = Cursor()
        # An empty page is no end: the server's own transactions may hold the horizon back for a moment.
        while not total.done() or len(seen) < total.result():
            page = await log.read_all(cursor, 5)
            seen += [(event.stream_id, event.version) for event in page]
            if page:
                cursor = cursor_of(page[-1])
            else:
                await asyncio.sleep(0.002)
        return seen

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await asyncio.gather(*(write(written[start::6]) for start in range(6)))
    rows = await database.fetch("SELECT stream_id, stream_version FROM events")
    total.set_result(len(rows))
    async with asyncio.timeout(30):
        views = [await reader for reader in readers]
    everything = sorted((row["stream_id"], row["stream_version"]) for row in rows)
    assert [sorted(view) for view in views] == [everything] * 3
    assert views[0] == views[1] == views[2]


@pytest.mark.parametrize("text", ["", "1", "x-y", "1-2-3"])
def test_a_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as refused:
        Cursor.parse(text)
    assert refused.value.code == "malformed_cursor"


def test_a_cursor_survives_its_own_text() -> None:
    cursor = Cursor(123456789, 42)
    assert Cursor.parse(str(cursor)) == cursor
