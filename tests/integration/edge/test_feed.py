"""The feed, live: every event of the tenant's runs once, in the log's order, whatever the topic does."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from codeagent.edge.admission import Admission
from codeagent.edge.feed import FeedSource
from codeagent.edge.joined import MOST_BUFFERED, EventStream
from codeagent.edge.live import LiveHub
from codeagent.eventlog.database import Database
from codeagent.eventlog.feed import EVERYTHING, Horizon, Wanted
from codeagent.eventlog.log import Cursor
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from codeagent.identity.principal import Principal
from codeagent.messages.events import RunCompleted
from tests.integration.edge.test_stream import live
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step


class Follower:
    """One client of the feed."""

    def __init__(self, log: TenantLog, hub: LiveHub, after: Cursor | None = None, wanted: Wanted = EVERYTHING) -> None:
        life = Admission(Principal(TENANT, "usr_t", "key_t"), None, lambda: hub.closing, lambda _: True)
        source = FeedSource(log, hub.feeds, TENANT, wanted, transport="sse")
        self._frames = EventStream(source, after, life).frames()
        self.seen: list[tuple[str, int]] = []
        self.cursor = ""

    async def take(self, count: int) -> None:
        """Reads on until `count` durable events have come."""
        async with asyncio.timeout(10):
            while count:
                frame = await anext(self._frames)
                if frame.position is not None:
                    event = json.loads(frame.data)
                    self.seen.append((event["partitionkey"], int(event["sequence"])))
                    self.cursor = frame.position
                    count -= 1

    async def close(self) -> None:
        await self._frames.aclose()


@pytest.fixture
async def database(module_database_url: str) -> AsyncIterator[Database]:
    opened = Database(module_database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def log(module_database_url: str) -> AsyncIterator[TenantLog]:
    """As the edge has it, behind row-level security."""
    walled = Database(module_database_url, role=EDGE_ROLE)
    yield TenantLog(walled)
    await walled.close()


@pytest.fixture
async def begin(log: TenantLog) -> Cursor:
    """Behind everything that other tests have written."""
    return (await log.horizon()).cursor


async def test_history_and_what_comes_live_join_without_gap_or_repeat(
    database: Database, log: TenantLog, begin: Cursor
) -> None:
    hub, runs = LiveHub(log), [new_run() for _ in range(5)]
    chance, written = random.Random(11), 0
    followers = [Follower(log, hub, begin)]

    async def write() -> None:
        nonlocal written
        for version in range(8):
            for run_id in chance.sample(runs, len(runs)):
                made = step(run_id, version, [started()])
                await commit_step(database, made)
                written += 1
                for _ in range(chance.randint(0, 2)):  # a record may be lost or doubled
                    hub.receive(live(made, 0))
                if written % 10 == 0:
                    followers.append(Follower(log, hub, begin))
                await asyncio.sleep(chance.random() / 200)
        hub.reconnected()

    writing = asyncio.create_task(write())
    await followers[0].take(40)
    await writing
    await asyncio.gather(*(follower.take(40) for follower in followers[1:]))
    assert sorted(followers[0].seen) == sorted((run_id, version) for run_id in runs for version in range(1, 9))
    assert all(follower.seen == followers[0].seen for follower in followers)
    await asyncio.gather(*(follower.close() for follower in followers))
    assert hub.feeds.watched == 0


class LateStarter(TenantLog):
    """A log whose live reader finds its place only when it is told to."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.may_start = asyncio.Event()

    async def horizon(self) -> Horizon:
        await self.may_start.wait()
        return await super().horizon()


async def test_what_is_written_between_a_clients_look_and_the_start_of_the_live_reader_is_not_lost(
    module_database_url: str, database: Database, begin: Cursor
) -> None:
    walled = Database(module_database_url, role=EDGE_ROLE)
    log, run_id = LateStarter(walled), new_run()
    follower = Follower(log, LiveHub(log), begin)
    await commit_step(database, step(run_id, 0, [started()]))
    await follower.take(1)
    waiting = asyncio.create_task(follower.take(1))
    await asyncio.sleep(0.1)  # it has looked, and waits
    await commit_step(database, step(run_id, 1, [started()]))
    log.may_start.set()
    await asyncio.wait_for(waiting, 5)
    assert follower.seen == [(run_id, 1), (run_id, 2)]
    await follower.close()
    await walled.close()


async def test_an_event_that_an_older_transaction_holds_back_comes_as_soon_as_that_ends(
    module_database_url: str, database: Database, log: TenantLog, begin: Cursor
) -> None:
    hub, run_id = LiveHub(log), new_run()
    follower = Follower(log, hub, begin)
    await commit_step(database, step(run_id, 0, [started()]))
    await follower.take(1)
    slow = await asyncpg.connect(module_database_url)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("SELECT pg_current_xact_id()")
    made = step(run_id, 1, [started()])
    await commit_step(database, made)
    hub.receive(live(made, 0))
    waiting = asyncio.create_task(follower.take(1))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await transaction.rollback()
    await asyncio.wait_for(waiting, 5)  # no further record tells of it
    assert follower.seen == [(run_id, 1), (run_id, 2)]
    await slow.close()
    await follower.close()


async def test_a_client_resumes_where_it_was_on_another_edge(database: Database, log: TenantLog, begin: Cursor) -> None:
    here, there, run_id = LiveHub(log), LiveHub(log), new_run()
    await commit_step(database, step(run_id, 0, [started() for _ in range(5)]))
    first = Follower(log, here, begin)
    await first.take(3)
    await first.close()
    second = Follower(log, there, Cursor.parse(first.cursor))
    await second.take(2)
    assert first.seen + second.seen == [(run_id, version) for version in range(1, 6)]
    await second.close()


async def test_a_filter_holds_for_history_and_for_what_comes_live(
    database: Database, log: TenantLog, begin: Cursor
) -> None:
    hub, mine, other = LiveHub(log), new_run(), new_run()
    ends, of_one = Wanted(types=("run.completed",)), Wanted(run_id=mine)
    await commit_step(database, step(mine, 0, [started(), started()]))
    followers = [Follower(log, hub, begin, wanted=ends), Follower(log, hub, begin, wanted=of_one)]
    await followers[1].take(2)
    takes = [asyncio.create_task(followers[0].take(2)), asyncio.create_task(followers[1].take(1))]
    await asyncio.sleep(0.05)
    for run_id, after in ((other, 0), (mine, 2)):
        made = step(run_id, after, [RunCompleted()])
        await commit_step(database, made)
        hub.receive(live(made, 0))
    await asyncio.gather(*takes)
    assert followers[0].seen == [(other, 1), (mine, 3)]
    assert followers[1].seen == [(mine, 1), (mine, 2), (mine, 3)]
    await asyncio.gather(*(follower.close() for follower in followers))


async def test_another_tenants_events_are_not_in_it(database: Database, log: TenantLog, begin: Cursor) -> None:
    hub, mine, theirs = LiveHub(log), new_run(), new_run()
    follower = Follower(log, hub, begin)
    await commit_step(database, replace(step(theirs, 0, [started()]), tenant_id="ten_other"))
    await commit_step(database, step(mine, 0, [started()]))
    await follower.take(1)
    assert follower.seen == [(mine, 1)]
    await follower.close()


async def test_a_client_that_falls_far_behind_loses_no_event(database: Database, log: TenantLog, begin: Cursor) -> None:
    hub, run_id, many = LiveHub(log), new_run(), MOST_BUFFERED + 200
    await commit_step(database, step(run_id, 0, [started()]))
    slow, quick = Follower(log, hub, begin), Follower(log, hub, begin)
    await asyncio.gather(slow.take(1), quick.take(1))
    taking = asyncio.create_task(quick.take(many))
    made = step(run_id, 1, [started() for _ in range(many)])
    await commit_step(database, made)
    hub.receive(live(made, many - 1))
    await taking
    await slow.take(many)
    assert slow.seen == quick.seen == [(run_id, version) for version in range(1, many + 2)]
    await asyncio.gather(slow.close(), quick.close())
