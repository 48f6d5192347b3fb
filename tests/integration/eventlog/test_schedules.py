"""Whatever the order in which writers begin, write, commit and abort: each subscriber has every event once, in order.

`CODEAGENT_TEST_EXAMPLES=2000 CODEAGENT_TEST_SEED=8` looks longer, and elsewhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.subscription import Subscription, of_all, of_category, of_stream
from codeagent.messages.ids import run_stream
from tests.conftest import SEED
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step

EXAMPLES = int(os.environ.get("CODEAGENT_TEST_EXAMPLES", "20"))
TRANSACTIONS, STEPS = 12, 4
"""Appenders: of facts, statement by statement in transactions that stay open, and of steps, each a statement."""
FIRST_NUMBER, FIRST_POSITION = 0, 1
"""The writers whose transactions have the lowest number, and the lowest position, and commit last."""


class Act(StrEnum):
    NUMBER = "takes a transaction's number"
    WRITE = "writes a fact"
    COMMIT = "commits"
    ABORT = "aborts"


Story = Sequence[tuple[int, Act | None]]
"""What happens, in this order: the number of a writer, and what it does; None for a whole step."""


@st.composite
def lives(draw: st.DrawFn) -> list[Act]:
    """One transaction of a writer."""
    number = [Act.NUMBER] if draw(st.booleans()) else []
    end = draw(st.sampled_from([Act.COMMIT, Act.COMMIT, Act.ABORT]))
    return [*number, *[Act.WRITE] * draw(st.integers(1, 3)), end]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Any interleaving of the others, while a lower number and a lower position are yet to commit."""
    acts: dict[int, list[Act | None]] = {
        writer: [act for life in draw(st.lists(lives(), min_size=1, max_size=2)) for act in life]
        for writer in range(2, TRANSACTIONS)
    }
    acts |= {writer: [None] * draw(st.integers(1, 2)) for writer in range(TRANSACTIONS, TRANSACTIONS + STEPS)}
    turns = draw(st.permutations([writer for writer, own in acts.items() for _ in own]))
    between = [(writer, acts[writer].pop(0)) for writer in turns]
    return [
        (FIRST_NUMBER, Act.NUMBER),
        (FIRST_POSITION, Act.WRITE),
        *between,
        (FIRST_POSITION, Act.COMMIT),
        (FIRST_NUMBER, Act.WRITE),
        (FIRST_NUMBER, Act.COMMIT),
    ]


class Aborted(Exception):
    pass


@dataclass
class Writer:
    """Appends to a stream of its own. `version` is what it has written, `committed` what of that is there to stay."""

    database: Database
    stream: str
    version: int = 0
    committed: int = 0
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)
    _change: Change | None = None

    async def does(self, act: Act) -> None:
        if self._change is None:
            author = Author(TENANT, "system", "test", clock.new_uuid())
            self._change = await self._open.enter_async_context(ControlPlane(self.database).change(author))
        match act:
            case Act.NUMBER:
                await self._change.rows("SELECT pg_current_xact_id()")
            case Act.WRITE:
                self.version += 1
                await self._change.record(self.stream, self.version, started())
            case Act.COMMIT:
                await self._open.aclose()
                self._change, self.committed = None, self.version
            case Act.ABORT:
                await self.abort()

    async def abort(self) -> None:
        await self._open.__aexit__(Aborted, Aborted(), None)
        self._change, self.version = None, self.committed


Seen = list[tuple[str, int]]


async def follow(subscription: Subscription[Cursor] | Subscription[int], seen: Seen) -> None:
    async for event in subscription:
        seen.append((event.stream_id, event.version))


async def follow_anew(log: EventLog, place: Cursor, seen: Seen) -> None:
    """As one that loses its connection after every event, and knows nothing but a place as a text."""
    while True:
        subscription = of_all(log, Cursor.parse(str(place)), page=1, idle_seconds=0.003)
        event = await anext(subscription)
        seen.append((event.stream_id, event.version))
        place = subscription.cursor


async def play(database: Database, story: Story) -> None:
    log, kinds = EventLog(database), ("project", "agent")
    names = [f"{kinds[n % 2]}-{clock.new_uuid()}" for n in range(TRANSACTIONS)]
    writers, runs = [Writer(database, name) for name in names], [[new_run(), 0] for _ in range(STEPS)]
    beginning = await log.settled()
    seen: list[Seen] = [[] for _ in range(4)]
    followed: list[Subscription[Cursor] | Subscription[int]] = [
        of_all(log, beginning, idle_seconds=0.001),
        of_category(log, "project", beginning, page=2, idle_seconds=0.002),
        of_stream(log, names[2], page=1, idle_seconds=0.002),
    ]
    tasks = [asyncio.create_task(follow(one, into)) for one, into in zip(followed, seen, strict=False)]
    tasks.append(asyncio.create_task(follow_anew(log, beginning, seen[3])))
    try:
        for number, act in story:
            if act is not None:
                await writers[number].does(act)
            else:
                run = runs[number - TRANSACTIONS]
                await commit_step(database, step(run[0], run[1], [started(), started()]))
                run[1] += 2
        everything = await written(database, beginning)
        forced(everything, names)
        wanted = [(stream, version) for stream, version, _, _ in everything]
        expected = [
            wanted,
            [each for each in wanted if each[0].startswith("project-")],
            sorted(each for each in wanted if each[0] == names[2]),
            wanted,
        ]
        async with asyncio.timeout(20):
            while any(len(got) < len(all_of_it) for got, all_of_it in zip(seen, expected, strict=True)):
                assert not any(task.done() for task in tasks)
                await asyncio.sleep(0.002)
        assert seen == expected
        assert {stream for stream, _ in wanted} >= {run_stream(run_id) for run_id, _ in runs}
    finally:
        for one in followed:
            one.close()
        tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            await writer.abort()


async def written(database: Database, beginning: Cursor) -> list[tuple[str, int, int, int]]:
    """Every event that was committed, in the order of the log: its stream, version, transaction and position."""
    rows = await database.fetch(
        """SELECT stream_id, stream_version, transaction_id::text, global_position FROM events e
           WHERE e.transaction_id >= $1::text::xid8 ORDER BY e.transaction_id, global_position""",
        str(beginning.transaction_id),
    )
    return [(row[0], row[1], int(row[2]), row[3]) for row in rows]


def forced(everything: list[tuple[str, int, int, int]], names: list[str]) -> None:
    """What the story means to bring about has come about."""
    assert everything[0][0] == names[FIRST_NUMBER], "the lowest transaction committed last"
    assert min(everything, key=lambda event: event[3])[0] == names[FIRST_POSITION], "so did the lowest position"
    assert max(everything, key=lambda event: event[3])[0] == names[FIRST_NUMBER], "and its position is the highest"


@dataclass(frozen=True)
class Stage:
    runner: asyncio.Runner
    database: Database


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        database = Database(database_url, connections=TRANSACTIONS + 6)
        yield Stage(runner, database)
        runner.run(database.close())


@seed(SEED)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(story=stories())
def test_every_subscriber_has_every_event_once_and_in_order(stage: Stage, story: Story) -> None:
    stage.runner.run(play(stage.database, story))
