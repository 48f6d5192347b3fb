"""What must hold once everything has come to rest, whatever happened on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.verify import verify
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.messages.executions import ExecStarted
from codeagent.messages.ids import call_stream, exec_stream, run_stream
from codeagent.messages.values import ApprovalDecision, Outcome, RunStatus
from tests.integration.workers.simulated.performers import line
from tests.integration.workers.simulated.world import MAX_ATTEMPTS, World

TERMINAL = {f"run.{status}" for status in RunStatus if status.terminal}


async def ended(world: World) -> bool:
    """Whether every run has ended and no ledger asks for more."""
    if await _rows(world, "effects") or await _rows(world, "outbox"):
        return False
    ends = [await _story(world, run_stream(run.run_id)) for run in world.runs]
    return all(story and story[-1].type in TERMINAL for story in ends)


async def check_ledger(world: World) -> None:
    """At any moment a run waits for one effect at most: what is answered is settled in the same commit."""
    many = "SELECT run_id, count(*) FROM effects WHERE kind <> 'timer' GROUP BY run_id HAVING count(*) > 1"
    assert list(await world.database.fetch(many)) == []
    # Of its deadline and the end of its question, whichever counts.
    many = """SELECT run_id, count(*) FROM effects WHERE convert_from(command, 'UTF8')::json ->> 'timer' <> 'cancel_grace'
              GROUP BY run_id HAVING count(*) > 1"""
    assert list(await world.database.fetch(many)) == []


async def check(world: World) -> None:
    """Raises `AssertionError` naming what does not hold."""
    assert not world.faults, world.faults
    assert await _rows(world, "effects") == 0, "rows left behind in the effects ledger"
    assert await _rows(world, "outbox") == 0, "rows left behind in the outbox"
    for run in world.runs:
        story = await _story(world, run_stream(run.run_id))
        assert verify(story) == [], "versions are contiguous and hashes hold"
        ends = [stored.version for stored in story if stored.type in TERMINAL]
        assert ends == [len(story)], f"one terminal event, and nothing after it: {[stored.type for stored in story]}"
        assert world.announced.get(run.run_id) == set(range(1, len(story) + 1)), "everything was announced"
        facts = [stored.decode() for stored in story]
        _check_approvals(facts)
        await _check_effects(world, facts)
        await _check_files(world, facts)


def _check_approvals(facts: Sequence[Event]) -> None:
    """Each question has one answer at most, and what a person has to allow is done after they have."""
    asked, allowed, always = None, set(), False
    for fact in facts:
        if isinstance(fact, events.InputRequired):
            asked = fact.request
        elif isinstance(fact, (events.InputReceived, events.InputExpired)):
            assert asked is not None, "an answer that nobody waits for"
            assert fact.approval_id == asked.approval_id
            if isinstance(fact, events.InputReceived):
                allowed.add(asked.tool_call_id)
                always = always or fact.decision is ApprovalDecision.ALLOW_ALWAYS
            asked = None
        elif isinstance(fact, events.ToolCallStarted) and any(isinstance(each, events.InputRequired) for each in facts):
            assert always or fact.tool_call_id in allowed, f"{fact.tool_call_id} was carried out unasked"


async def _check_effects(world: World, facts: Sequence[Event]) -> None:
    """Each effect was recorded once, and what the run was told is what was recorded."""
    asked = {fact.effect_id for fact in facts if isinstance(fact, (events.StepStarted, events.ToolCallStarted))}
    answers = [fact for fact in facts if isinstance(fact, (events.MessageCompleted, events.ToolCallCompleted))]
    assert max(Counter(fact.effect_id for fact in answers).values(), default=1) == 1, "an effect was answered twice"
    attempts = {}
    for effect_id in asked:
        story = [*await _story(world, call_stream(effect_id)), *await _story(world, exec_stream(effect_id))]
        assert verify(story) == []
        recorded = [stored for stored in story if stored.type != ExecStarted.NAME]
        assert len(story) - len(recorded) <= len(recorded), f"{effect_id} began and has no end"
        assert len(recorded) <= 1, f"the outcome of {effect_id} was recorded {len(recorded)} times"
        for stored in recorded:
            fact = stored.decode()
            assert isinstance(fact, (events.CallEnded, events.ExecEnded))
            attempts[effect_id] = fact.attempt
            _check_outcome(fact)
    for fact in answers:
        assert attempts.get(fact.effect_id) == fact.attempt, "the run was told another outcome than was recorded"


def _check_outcome(fact: events.CallEnded | events.ExecEnded) -> None:
    """What fails, fails of what the schedule made fail, and not of what workers do to each other."""
    if fact.attempt > MAX_ATTEMPTS:
        assert fact.outcome in {Outcome.WORKER_LOST, Outcome.CANCELED}, f"{fact.effect_id} was tried too often"
    if fact.outcome is Outcome.FAILED:
        reason = fact.error_reason if isinstance(fact, events.CallEnded) else fact.reason
        assert reason in {"overloaded", "sandbox_error", "database_unavailable"}, f"{fact.effect_id} failed: {reason}"


async def _check_files(world: World, facts: Sequence[Event]) -> None:
    """Every command's line is in the files once: in each checkpoint, and in the patch."""
    written = [fact for fact in facts if isinstance(fact, events.ToolCallCompleted)]
    for number, fact in enumerate(written, start=1):
        assert await world.lines_at(fact.checkpoint) == [line(each) for each in range(number)]
    patches = [fact.artifact.digest for fact in facts if isinstance(fact, events.ArtifactCreated)]
    collected = any(isinstance(fact, events.StepCompleted) and fact.name == "collect" for fact in facts)
    assert patches == ([written[-1].checkpoint] if collected and written else [])
    if isinstance(facts[-1], events.RunCompleted):
        assert len(written) == world.lines, "the run completed without all of its lines"


async def _rows(world: World, table: str) -> int:
    return int((await world.database.fetch(f"SELECT count(*) FROM {table}"))[0][0])


async def _story(world: World, stream_id: str) -> Sequence[StoredEvent]:
    return await EventLog(world.database).read_stream(stream_id)
