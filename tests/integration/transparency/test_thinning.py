"""Old checkpoints are thinned out: what stays, and that nothing is proved or found less for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.transparency import tables
from codeagent.transparency.checkpoints import open_checkpoint
from codeagent.transparency.findings import Code, Discrepancy
from codeagent.transparency.reading import StoredTree
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.verification import LogVerification
from tests.integration.transparency.conftest import Tamper
from tests.integration.transparency.sealed import KEY, KEYS, ORIGIN, append_runs, newest, seal_all

SEALED_AT = (
    "09:10:00", "09:20:00", "09:59:59", "10:00:00", "10:30:00", "10:59:00", "11:01:00", "13:00:00", "13:00:01", "13:00:02",
)  # fmt: skip
"""When checkpoint 1, 2, ... of `log` were signed, long ago. The fifth has left the database."""
STAY = {3: 2, 5: 1, 6: 0, 7: 0, 10: 2}
"""By number, how many went right before those that stay: the last of each hour, the fifth, the newest."""
MONTH = timedelta(days=30)


@pytest.fixture
async def log(database: Database, tamper: Tamper) -> Database:
    sealer = Sealer(database, KEYS)
    for number, at in enumerate(SEALED_AT, start=1):
        await append_runs(database, 2)
        await seal_all(database, sealer)
        await tamper(f"UPDATE audit_checkpoints SET sealed_at = '2026-01-02T{at}Z' WHERE number = {number}")
        if number == 5:
            await tables.note_anchored(database, "elsewhere", (await newest(database)).size)
    return database


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Database]:
    """As the relay works: under the services' role."""
    opened = Database(database_url, connections=4, role=SERVICE_ROLE)
    yield opened
    await opened.close()


async def left(database: Database) -> dict[int, int]:
    return {each.number: each.thinned for each in await tables.checkpoints_after(database, 0, 100)}


async def found(database: Database, first: int = 0, last: int | None = None) -> list[Discrepancy]:
    async with database.transaction() as connection:
        return [each async for each in LogVerification(connection, KEYS, (), first, last).findings()]


async def test_the_last_of_each_hour_stays_what_was_anchored_and_the_newest(log: Database, relay: Database) -> None:
    assert await tables.thin_checkpoints(relay, timedelta(days=36500), 100) == 0
    assert len(await left(log)) == len(SEALED_AT)
    assert await tables.thin_checkpoints(relay, MONTH, 100) == 8
    assert await left(log) == STAY
    assert await tables.thin_checkpoints(relay, MONTH, 100) == 0, "nothing is looked at twice"


@pytest.mark.parametrize("most", [1, 3])
async def test_relays_that_work_at_once_and_in_small_steps_come_to_the_same(
    log: Database, relay: Database, most: int
) -> None:
    while sum(await asyncio.gather(*(tables.thin_checkpoints(relay, MONTH, most) for _ in range(3)))):
        pass
    assert await left(log) == STAY


async def test_the_log_verifies_as_before_and_goes_on(log: Database, relay: Database) -> None:
    thinned = open_checkpoint((await tables.checkpoints_after(log, 0, 1))[0].note, ORIGIN, [KEY.verifier])
    await tables.thin_checkpoints(relay, MONTH, 100)
    await append_runs(log, 3)
    await seal_all(log, Sealer(log, KEYS))
    assert await found(log) == []
    signed = open_checkpoint((await newest(log)).note, ORIGIN, [KEY.verifier])
    await StoredTree(log).check_continues(thinned, signed)


async def test_whoever_removes_another_one_is_found(log: Database, relay: Database, tamper: Tamper) -> None:
    await tables.thin_checkpoints(relay, MONTH, 100)
    await tamper("DELETE FROM audit_checkpoints WHERE number = 6")
    assert [(each.code, each.where) for each in await found(log)] == [(Code.CHECKPOINT_MISSING, "checkpoint 6")]
    await tamper("UPDATE audit_checkpoints SET thinned = 3 WHERE number = 7")
    assert [(each.code, each.where) for each in await found(log)] == [(Code.CHECKPOINT_CHANGED, "checkpoint 7")]


async def test_one_that_was_removed_before_is_missed_after_it_as_well(
    log: Database, relay: Database, tamper: Tamper
) -> None:
    await tamper("DELETE FROM audit_checkpoints WHERE number = 2")
    await tables.thin_checkpoints(relay, MONTH, 100)
    assert [each.code for each in await found(log)] == [Code.CHECKPOINT_MISSING]


async def test_a_range_that_ends_between_two_checkpoints_is_held_against_the_next(
    log: Database, relay: Database, tamper: Tamper
) -> None:
    await tables.thin_checkpoints(relay, MONTH, 100)
    assert await found(log, 1, 3) == []
    await tamper("UPDATE events SET leaf_hash = sha256('x'), data_digest = data_digest WHERE global_position = 2")
    await tamper(
        """UPDATE audit_tiles SET hashes = overlay(hashes PLACING (SELECT leaf_hash FROM events
           WHERE global_position = 2) FROM 33) WHERE level = 0"""
    )
    codes = {each.code for each in await found(log, 1, 3)}
    assert Code.CHECKPOINT_CONTRADICTS in codes
    await tamper("DELETE FROM audit_checkpoints")
    assert Code.CHECKPOINT_MISSING in {each.code for each in await found(log, 1, 3)}
