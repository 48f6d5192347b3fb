"""What breakers do stands in the log; a worker that starts goes on from it; how providers are is there to be seen."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.verify import verify
from codeagent.messages.ids import provider_stream
from codeagent.messages.provider_events import BreakerChanged
from codeagent.provider_registry import tables
from codeagent.provider_registry.breakers import BreakerJournal
from codeagent.providers.breaker import Breaker, CircuitOpen

WITHIN = timedelta(seconds=30)


class Worker:
    """A worker's breaker and its journal. A look at the clock costs no time."""

    def __init__(self, database: Database, name: str, provider: str = "acme") -> None:
        self.journal = BreakerJournal(database, name)
        self.now = 1_000.0
        self.breaker = Breaker(provider, failures_to_open=2, listeners=[self.journal.heard], monotonic=lambda: self.now)

    async def start(self) -> Worker:
        await self.journal.follow([self.breaker])
        await self.journal.start()
        return self

    def fail(self, times: int = 2) -> None:
        for _ in range(times):
            self.breaker.record(self.breaker.admit(), "failure", "timeout")

    def recover(self) -> None:
        self.now += 30.0
        self.breaker.record(self.breaker.admit(), "success")


async def story(database: Database, provider: str = "acme") -> list[tuple[str, str, str]]:
    stored = await EventLog(database).read_stream(provider_stream(provider))
    assert verify(stored) == []
    facts = [event.decode() for event in stored]
    assert all(isinstance(fact, BreakerChanged) for fact in facts)
    return [(fact.NAME.removeprefix("provider.breaker_"), fact.worker, fact.reason) for fact in facts]  # type: ignore[attr-defined]


async def has(database: Database, most: int) -> list[tuple[str, str, str]]:
    """The story once it has so many facts."""
    async with asyncio.timeout(10):
        while len(found := await story(database)) < most:
            await asyncio.sleep(0.01)
    return found


async def test_each_change_is_a_fact_with_the_worker_and_our_name_of_the_reason(database: Database) -> None:
    worker = await Worker(database, "worker-a").start()
    worker.fail()
    worker.recover()
    assert await has(database, 3) == [
        ("opened", "worker-a", "timeout"),
        ("half_opened", "worker-a", "timeout"),
        ("closed", "worker-a", "timeout"),
    ]
    await worker.journal.stop()


async def test_workers_that_write_at_once_take_turns(database: Database) -> None:
    workers = [await Worker(database, f"worker-{number}").start() for number in range(6)]
    for worker in workers:
        worker.fail()
    assert {who for _, who, _ in await has(database, 6)} == {f"worker-{number}" for number in range(6)}
    await asyncio.gather(*(worker.journal.stop() for worker in workers))


async def test_what_a_worker_hears_as_it_stops_is_written(database: Database) -> None:
    worker = Worker(database, "worker-a")
    worker.fail()
    await worker.journal.stop()
    assert await story(database) == [("opened", "worker-a", "timeout")]


async def test_a_worker_that_starts_does_not_press_a_provider_that_was_given_up_a_moment_ago(
    database: Database,
) -> None:
    former = Worker(database, "worker-a")
    former.fail()
    await former.journal.stop()
    later = await Worker(database, "worker-b").start()
    with pytest.raises(CircuitOpen) as refused:
        later.breaker.admit()
    assert refused.value.retry_after_seconds is not None
    assert 20 < refused.value.retry_after_seconds < 30
    assert len(await story(database)) == 1, "it tells nobody what the log has told it"
    later.recover()
    await has(database, 3)
    await later.journal.stop()
    recovered = await Worker(database, "worker-c").start()
    recovered.breaker.admit()
    await recovered.journal.stop()


async def test_a_worker_that_starts_while_a_provider_is_tried_again_sends_one_call_first(database: Database) -> None:
    former = Worker(database, "worker-a")
    former.fail()
    former.now += 30.0
    former.breaker.admit()  # and is never heard of again
    await former.journal.stop()
    assert (await story(database))[-1][0] == "half_opened"
    later = await Worker(database, "worker-b").start()
    probe = later.breaker.admit()
    assert probe.probe
    with pytest.raises(CircuitOpen):
        later.breaker.admit()
    assert len(await story(database)) == 2, "it tells nobody what the log has told it"
    later.breaker.record(probe, "success")
    assert not later.breaker.admit().probe
    assert (await has(database, 3))[-1] == ("closed", "worker-b", "")
    await later.journal.stop()


async def test_a_state_that_is_older_than_its_pause_is_not_continued(database: Database) -> None:
    former = Worker(database, "worker-a")
    former.fail()
    await former.journal.stop()
    patient = BreakerJournal(database, "worker-b")
    quick = Breaker("acme", open_seconds=0.0)
    await patient.follow([quick])
    assert quick.state == "closed"


async def test_how_workers_stand_is_added_up_and_forgotten_with_them(database: Database) -> None:
    first, second = Worker(database, "worker-a"), Worker(database, "worker-b")
    first.fail()
    second.breaker.record(second.breaker.admit(), "success")
    for name, worker in (("worker-a", first), ("worker-b", second), ("worker-b", second)):
        await tables.report(database, name, {"acme": worker.breaker.standing}, timedelta(minutes=10))
    found = await tables.health(database, WITHIN)
    acme = found["acme"]
    assert (acme.closed, acme.half_open, acme.open, acme.last_failure_reason) == (1, 0, 1, "timeout")
    assert acme.last_answer_at is not None
    assert acme.last_failure_at is not None
    await database.write("UPDATE provider_health SET seen_at = seen_at - interval '1 hour' WHERE worker = 'worker-a'")
    assert (await tables.health(database, WITHIN))["acme"].open == 0
    await tables.report(database, "worker-b", {"acme": second.breaker.standing}, timedelta(minutes=10))
    [row] = await database.fetch("SELECT count(*) FROM provider_health")
    assert row[0] == 1
