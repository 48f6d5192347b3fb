"""Who answers for what happens in between: each window in which something can die, be late, or come twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from codeagent.errors import OutcomeUnknown, Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.step import Steps
from codeagent.eventlog.sweep import Sweeper
from codeagent.messages import commands
from codeagent.messages.ids import derived_uuid
from codeagent.workers.effect import Work
from tests.integration.workers.system import Bench, Calls, answered


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_message_that_comes_again_after_its_commit_changes_nothing(bench: Bench) -> None:
    agent = bench.agent()
    for loop in (agent, agent, bench.agent()):
        await loop.handle(bench.submit())
    assert await bench.names() == ["run.submitted", "run.started", "run.step.started"]
    assert await bench.rows("effects") == 2


async def test_two_owners_of_one_run_the_one_with_the_old_state_reloads(bench: Bench) -> None:
    fresh, zombie = bench.agent(), bench.agent()
    await zombie.handle(bench.submit())
    prepared = bench.prepared()
    await fresh.handle(prepared)
    call = bench.mailbox.commands[-1]
    assert call.data.NAME == "provider.generate"
    await zombie.handle(prepared)
    assert await bench.names() == [
        "run.submitted",
        "run.started",
        "run.step.started",
        "run.step.completed",
        "run.step.started",
    ]


async def test_a_connection_that_dies_during_the_commit_leaves_one_outcome(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, real = bench.agent(), Steps.commit

    async def commits_and_dies(*arguments: object) -> None:
        await real(*arguments)  # type: ignore[arg-type]  # passed through
        raise OutcomeUnknown("the connection died")

    monkeypatch.setattr(Steps, "commit", commits_and_dies)
    with pytest.raises(OutcomeUnknown):
        await agent.handle(bench.submit())
    monkeypatch.undo()
    await agent.handle(bench.submit())
    assert await bench.names() == ["run.submitted", "run.started", "run.step.started"]


async def test_what_a_crash_kept_from_being_sent_is_found_by_the_sweep(bench: Bench) -> None:
    await bench.agent().handle(bench.submit())
    sweeper = Sweeper(bench.database)
    assert list(await sweeper.due_messages()) == []
    await bench.database.write("UPDATE outbox SET due_at = clock_timestamp()")
    [row] = await sweeper.due_messages()
    assert (row.stream_id, row.first_version, row.last_version) == (f"run-{bench.run_id}", 1, 3)
    assert list(await sweeper.due_messages()) == []


async def test_a_lost_command_is_performed_all_the_same(bench: Bench) -> None:
    await bench.thinking(bench.agent())
    performer = Calls()
    worker = bench.provider(performer)
    await worker.start()
    await bench.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'provider'")
    await until(lambda: len(bench.mailbox.answers) == 1)
    await worker.drain(1)
    assert performer.performed == [1]


async def test_a_worker_that_is_not_able_takes_nothing_and_finds_it_when_it_is(bench: Bench) -> None:
    call = await bench.thinking(bench.agent())
    performer, able = Calls(), False
    worker = bench.provider(performer, is_able=lambda: able)
    await worker.start()
    await worker.handle(call)
    await bench.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'provider'")
    await asyncio.sleep(0.2)  # four sweeps
    assert performer.performed == []
    able = True
    await until(lambda: len(bench.mailbox.answers) == 1)
    await worker.drain(1)
    assert performer.performed == [1]


async def test_a_command_that_comes_many_times_is_performed_once(bench: Bench) -> None:
    call = await bench.thinking(bench.agent())
    performer = Calls()
    workers = [bench.provider(performer) for _ in range(3)]
    await asyncio.gather(*(worker.handle(call) for worker in workers for _ in range(5)))
    await until(lambda: len(bench.mailbox.answers) == 1)
    await asyncio.gather(*(worker.handle(call) for worker in workers))
    for worker in workers:
        await worker.drain(1)
    assert performer.performed == [1]


async def test_a_paused_owner_finds_its_work_taken_over_and_its_outcome_refused(bench: Bench) -> None:
    agent = bench.agent()
    call = await bench.thinking(agent)
    resume = asyncio.Event()

    async def pause(_: Work) -> None:
        await resume.wait()

    paused = bench.provider(Calls(pause), lease=0.2)
    await paused.handle(call)  # never started: it does not renew, as a stopped process does not
    await asyncio.sleep(0.3)
    successor = bench.provider(Calls())
    await successor.start()
    await until(lambda: len(bench.mailbox.answers) == 1)
    resume.set()
    await paused.drain(2)
    await successor.drain(1)
    [row] = bench.mailbox.answers
    assert row.data.attempt == 2  # type: ignore[attr-defined]  # a result
    await agent.handle(answered(row))
    assert (await bench.names())[-2:] == ["message.completed", "tool.call.started"]
    assert await bench.database.fetch("SELECT 1 FROM events WHERE stream_id LIKE 'call-%' AND stream_version > 1") == []


async def test_a_worker_that_takes_its_own_work_over_ends_the_old_before_it_begins_anew(bench: Bench) -> None:
    call = await bench.thinking(bench.agent())
    working, most, ended = 0, 0, asyncio.Event()

    async def work(work: Work) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        try:
            await (asyncio.sleep(3600) if work.claim.attempt < 3 else ended.wait())
        finally:
            await asyncio.sleep(0.05)  # as a command takes a moment to be ended
            working -= 1

    worker = bench.provider(Calls(work))
    for _ in range(3):
        await worker.handle(call)
        await until(lambda: working == 1)
        await bench.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'provider'")
    ended.set()
    await until(lambda: len(bench.mailbox.answers) == 1)
    await worker.drain(1)
    assert (most, working) == (1, 0)
    assert bench.mailbox.answers[0].data.attempt == 3  # type: ignore[attr-defined]  # a result


async def test_a_result_whose_message_was_lost_is_sent_again_and_handled_once(bench: Bench) -> None:
    agent = bench.agent()
    call = await bench.thinking(agent)
    worker = bench.provider(Calls())
    await worker.handle(call)
    await until(lambda: len(bench.mailbox.answers) == 1)
    await worker.drain(1)
    await bench.database.write("UPDATE outbox SET due_at = clock_timestamp() WHERE value IS NOT NULL")
    [row] = [row for row in await Sweeper(bench.database).due_messages() if row.value is not None]
    assert row.topic == "codeagent.provider.events.v1"
    for _ in range(3):
        await agent.handle(answered(bench.mailbox.answers[0]))
    assert (await bench.names()).count("message.completed") == 1
    assert await bench.database.fetch("SELECT 1 FROM outbox WHERE value IS NOT NULL") == []


async def test_a_worker_that_fails_every_time_ends_in_a_fact_and_not_in_silence(bench: Bench) -> None:
    agent = bench.agent()
    call = await bench.thinking(agent)

    async def fail(_: Work) -> None:
        raise ValueError("a bug")

    worker = bench.provider(Calls(fail), attempts=1)
    await worker.handle(call)
    await until(lambda: len(bench.mailbox.answers) == 1)
    await worker.drain(1)
    await agent.handle(answered(bench.mailbox.answers[0]))
    names = await bench.names()
    assert names[-1] == "run.step.started"  # the patch is still collected
    assert await bench.rows("effects") == 2


async def test_an_effect_claimed_too_often_ends_as_worker_lost(bench: Bench) -> None:
    call = await bench.thinking(bench.agent())
    await bench.database.write("UPDATE effects SET attempt = 4 WHERE kind = 'provider'")
    performer = Calls()
    worker = bench.provider(performer, attempts=4)
    await worker.handle(call)
    await until(lambda: len(bench.mailbox.answers) == 1)
    await worker.drain(1)
    assert performer.performed == []
    assert bench.mailbox.answers[0].data.outcome == "worker_lost"  # type: ignore[attr-defined]  # a result


async def test_a_full_worker_leaves_the_command_to_a_free_slot(bench: Bench) -> None:
    other = Bench(bench.database, bench.mailbox)
    first, second = await bench.thinking(bench.agent()), await other.thinking(other.agent())
    resume = asyncio.Event()

    async def wait(_: Work) -> None:
        await resume.wait()

    worker = bench.provider(Calls(wait), slots=1)
    await worker.start()
    await worker.handle(first)
    await worker.handle(second)
    assert await bench.database.fetch("SELECT 1 FROM effects WHERE kind = 'provider' AND token IS NULL") != []
    resume.set()
    await until(lambda: len(bench.mailbox.answers) == 2)
    await worker.drain(1)


async def test_a_cancel_reaches_the_performer_within_a_moment(bench: Bench) -> None:
    agent = bench.agent()
    call = await bench.thinking(agent)

    async def wait(_: Work) -> None:
        await asyncio.sleep(3600)

    worker = bench.provider(Calls(wait))
    await worker.start()
    await asyncio.sleep(0.3)  # until it listens
    await worker.handle(call)
    await agent.handle(bench.message(commands.CancelRun(run_id=bench.run_id)))
    await until(lambda: len(bench.mailbox.answers) == 1, 3)
    await worker.drain(1)
    await agent.handle(answered(bench.mailbox.answers[0]))
    assert (await bench.names())[-2:] == ["run.cancel_requested", "run.canceled"]
    assert await bench.rows("effects") == 0


async def test_a_cancel_reaches_a_call_that_waits_to_be_tried_again(bench: Bench) -> None:
    agent = bench.agent()
    call = await bench.thinking(agent)

    async def fail(_: Work) -> None:
        raise Unavailable("too busy")

    performer = Calls(fail)
    worker = bench.provider(performer)
    await worker.start()
    await worker.handle(call)
    await until(lambda: performer.performed == [1])
    await agent.handle(bench.message(commands.CancelRun(run_id=bench.run_id)))
    worker.notified(bench.run_id)
    await until(lambda: len(bench.mailbox.answers) == 1, 3)
    await worker.drain(1)
    assert bench.mailbox.answers[0].data.outcome == "canceled"  # type: ignore[attr-defined]  # a result


async def test_a_worker_that_drains_gives_back_what_it_cannot_finish(bench: Bench) -> None:
    call = await bench.thinking(bench.agent())

    async def wait(_: Work) -> None:
        await asyncio.sleep(3600)

    leaving = bench.provider(Calls(wait))
    await leaving.handle(call)
    await leaving.drain(0.1)
    staying = bench.provider(Calls())
    await staying.start()
    await until(lambda: len(bench.mailbox.answers) == 1, 3)
    await staying.drain(1)
    assert bench.mailbox.answers[0].data.attempt == 1  # type: ignore[attr-defined]  # a result


async def test_a_bug_in_a_decision_ends_that_run_without_folding(bench: Bench) -> None:
    agent = bench.agent()
    await agent.handle(bench.submit())
    poison = bench.prepared()
    await agent.give_up(poison, ValueError("a bug"))
    await agent.give_up(poison, ValueError("a bug"))
    assert (await bench.names())[-1] == "run.failed"
    assert (await bench.names()).count("run.failed") == 1
    assert await bench.rows("effects") == 0


async def test_a_deadline_fires_from_the_ledger_and_again_until_the_run_has_ended(bench: Bench) -> None:
    agent = bench.agent()
    await agent.handle(bench.submit(deadline_seconds=5))
    sweeper = Sweeper(bench.database)
    await bench.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'timer'")
    [timer] = await sweeper.due_timers()
    assert timer.data == commands.FireTimer(
        run_id=bench.run_id, timer_id=derived_uuid(bench.run_id, "deadline"), timer="deadline"
    )
    assert list(await sweeper.due_timers()) == []
    await bench.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'timer'")
    assert len(await sweeper.due_timers()) == 1


async def test_a_database_that_is_away_is_told_as_such_and_nothing_is_acknowledged(bench: Bench) -> None:
    nowhere = Database("postgresql://nobody:x@127.0.0.1:1/none", timeout_seconds=1)
    agent = Bench(nowhere, bench.mailbox, bench.run_id).agent()
    with pytest.raises(Unavailable):
        await agent.handle(bench.submit())
    assert bench.mailbox.commands == []
