"""What a worker knows of a run's conversation: read once, grown call by call, and forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from codeagent import clock
from codeagent.errors import NotFound, Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import CancelRun, SubmitRun
from codeagent.messages.ids import run_stream
from codeagent.messages.values import RunStatus
from codeagent.workers import transcripts
from codeagent.workers.transcripts import KEPT_SECONDS, Transcripts, earlier_turns
from tests.integration.subject_keys import SHARED
from tests.integration.workers.system import TENANT, Bench


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def canceled(
    bench: Bench, task: str, *, first: bool = False, tenant_id: str = TENANT, person: str = "usr_b"
) -> str:
    """A run that was canceled, before it was submitted or after; its id."""
    other = Bench(bench.database, tenant_id=tenant_id)
    agent, submit, cancel = other.agent(), other.submit(), other.message(CancelRun(run_id=other.run_id))
    assert isinstance(submit.data, SubmitRun)
    envelope = replace(submit.envelope, actor_id=person)
    submit = replace(submit, envelope=envelope, data=submit.data.model_copy(update={"task": task}))
    for message in (cancel, submit) if first else (submit, cancel):
        await agent.handle(message)
    if not first:
        await agent.handle(other.prepared())
    return other.run_id


async def follows(bench: Bench, *run_ids: str) -> None:
    submit = bench.submit()
    assert isinstance(submit.data, SubmitRun)
    await bench.agent().handle(replace(submit, data=submit.data.model_copy(update={"follows": run_ids})))


async def test_a_run_remembers_those_that_it_follows_as_the_log_has_them(bench: Bench) -> None:
    runs = [await canceled(bench, "one"), await canceled(bench, "two", first=True)]
    await follows(bench, *runs, "run_00000000000000000000000000")
    transcript = await Transcripts(EventLog(bench.database)).of(TENANT, bench.run_id, 1)
    assert [(turn.task, turn.status) for turn in transcript.history] == [
        ("one", RunStatus.CANCELED),
        ("two", RunStatus.CANCELED),
    ]


async def test_nobody_remembers_a_run_of_another_tenant_or_one_that_is_at_work(bench: Bench) -> None:
    strange = await canceled(bench, "secret", tenant_id="ten_other")
    await bench.agent().handle(bench.submit())
    runs = await EventLog(bench.database).read_ends([run_stream(strange), run_stream(bench.run_id)])
    assert [len(run) > 0 for run in runs] == [True, True]
    assert earlier_turns(TENANT, runs) == ()


async def test_what_was_remembered_of_somebody_is_forgotten_with_their_key(bench: Bench) -> None:
    person = f"usr_{bench.run_id[4:]}"
    ada = await canceled(bench, "one", person=person)
    await follows(bench, ada, await canceled(bench, "two"))
    kept = Transcripts(EventLog(bench.database))
    assert [turn.task for turn in (await kept.of(TENANT, bench.run_id, 1)).history] == ["one", "two"]
    [[first, *_]] = await EventLog(bench.database).read_ends([run_stream(ada)])
    assert first.key_id is not None
    await SHARED.shred(first.key_id, clock.now())
    await asyncio.sleep(0.06)  # as long as keys are in memory here
    assert [turn.task for turn in (await kept.of(TENANT, bench.run_id, 1)).history] == ["two"]


async def test_a_conversation_grows_by_what_is_new_and_is_read_again_for_an_earlier_call(bench: Bench) -> None:
    await bench.thinking(bench.agent())
    kept = Transcripts(EventLog(bench.database))
    early = await kept.of(TENANT, bench.run_id, 2)
    assert await kept.of(TENANT, bench.run_id, 4) is early
    assert early.version == 4
    assert (await kept.of(TENANT, bench.run_id, 2)).version == 2


async def test_it_is_forgotten_a_while_after_the_last_call_and_when_there_are_many(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking = Clock()
    kept = Transcripts(EventLog(bench.database), ticking)
    others = [await canceled(bench, "t") for _ in range(3)]
    for run_id in others:
        await kept.of(TENANT, run_id, 1)
    ticking.now = KEPT_SECONDS / 2
    await kept.of(TENANT, others[0], 1)
    ticking.now = KEPT_SECONDS + 1
    await kept.of(TENANT, others[0], 1)
    assert len(kept) == 1
    monkeypatch.setattr(transcripts, "MOST_TRANSCRIPTS", 2)
    for run_id in others:
        await kept.of(TENANT, run_id, 1)
    assert len(kept) == 2


async def test_what_is_not_there_is_not_made_up(bench: Bench) -> None:
    await bench.thinking(bench.agent())
    kept = Transcripts(EventLog(bench.database))
    with pytest.raises(NotFound):
        await kept.of("ten_other", bench.run_id, 1)
    with pytest.raises(Unavailable):
        await kept.of(TENANT, bench.run_id, 1_000)
