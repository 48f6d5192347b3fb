"""What is kept of a long log: dropped and made anew it is the same. `CODEAGENT_TEST_EVENTS` says how long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.rebuild import make_anew
from codeagent.projections.verification import ProjectionVerification
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.verification import LogVerification
from tests.integration.projections.history import history
from tests.integration.projections.logs import caught_up, copy, new_run_id, write
from tests.integration.projections.test_rebuild import TABLES, story
from tests.integration.transparency.sealed import KEYS

EVENTS = int(os.environ.get("CODEAGENT_TEST_EVENTS", "1200"))
AT_ONCE = 5_000


class Stopwatch:
    """Tells how long each part took, at the end of the output."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self._tell(f"{part}: {EVENTS} events in {seconds:.1f} s, {EVENTS / seconds:.0f} a second")


async def keep(database: Database) -> None:
    for table in TABLES:
        await database.write(f"CREATE TABLE live_{table} AS SELECT * FROM {table}")


async def differing(database: Database) -> list[str]:
    """Tables whose rows are not those that were kept aside, or that have none."""
    found = []
    for table in TABLES:
        [[rows, other]] = await database.fetch(
            f"SELECT (SELECT count(*) FROM {table}), (SELECT count(*) FROM "
            f"((TABLE {table} EXCEPT ALL TABLE live_{table}) UNION ALL (TABLE live_{table} EXCEPT ALL TABLE {table})) d)"
        )
        found += [] if rows and not other else [table]
    return found


async def seal(database: Database) -> list[str]:
    """All of it; returns what a verification has to say."""
    sealer = Sealer(database, KEYS, most=AT_ONCE)
    while await sealer.seal():
        pass
    async with database.transaction() as connection:
        verification = LogVerification(connection, KEYS)
        found = [str(finding) async for finding in verification.findings()]
    assert (verification.entries, verification.waiting) == (EVENTS, 0)
    return found


@pytest.mark.timeout(120 + EVENTS / 200)
async def test_projections_dropped_and_rebuilt_equal_the_live_ones(
    database_url: str, tell: Callable[[str], None]
) -> None:
    database, timed = Database(database_url, timeout_seconds=600), Stopwatch(tell)
    with timed("written"):
        await copy(database, history(EVENTS), AT_ONCE)
    with timed("sealed and verified"):
        assert await seal(database) == []
    with timed("all of it kept live, one after the other"):
        for kind in PROJECTIONS.values():
            await caught_up(database, kind(database, EventLog(database)))
    await keep(database)
    await database.write(f"TRUNCATE projections, {', '.join(TABLES)}")
    assert await differing(database) == TABLES
    with timed("all of them rebuilt"):
        made = [each.events async for each in make_anew(database, [*PROJECTIONS.values()], swap=True)]
    assert made == [EVENTS] * len(PROJECTIONS)
    assert await differing(database) == []
    await write(database, story(new_run_id()))
    for kind in PROJECTIONS.values():  # from where the new rows end: nothing is taken twice
        await caught_up(database, kind(database, EventLog(database)))
    with timed("all of them verified"):
        assert [str(found) async for found in ProjectionVerification(database).findings()] == []
    await database.close()
