"""What must hold once everything has come to rest, whatever happened on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from codeagent.agent.calls import MOST_READS
from codeagent.agent.delegation import LOST
from codeagent.agent.tools import Delegate, ReadFile, Shell
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.verify import verify
from codeagent.messages import events
from codeagent.messages.calls import CallEnded
from codeagent.messages.commands import ExecuteOperation, FireTimer
from codeagent.messages.envelope import Event
from codeagent.messages.executions import ExecStarted
from codeagent.messages.ids import call_stream, exec_stream, run_stream
from codeagent.messages.subagents import SubagentEnded, SubagentStarted
from codeagent.messages.values import ApprovalDecision, CallTool, Outcome, RunStatus
from tests.integration.opened import commands_at_work
from tests.integration.workers.simulated.performers import line
from tests.integration.workers.simulated.world import MAX_ATTEMPTS, World

TERMINAL = {f"run.{status}" for status in RunStatus if status.terminal}


async def ended(world: World) -> bool:
    """Whether every run has ended and no ledger asks for more."""
    if await _rows(world, "effects") or await _rows(world, "outbox"):
        return False
    ends = [await _story(world, stream_id) for stream_id in await _streams(world)]
    return len(ends) >= len(world.runs) and all(story[-1].type in TERMINAL for story in ends)


async def check_ledger(world: World) -> None:
    """At any moment a run waits for one effect at most, or for as many reads as it may have at once: what is answered is
    settled in the same commit."""
    called: defaultdict[str, list[str]] = defaultdict(list)
    timers: Counter[str] = Counter()
    for message in await commands_at_work(world.database):
        match message.data:
            case FireTimer(timer="deadline" | "approval_expiry"):
                timers[message.envelope.key] += 1
            case FireTimer():
                pass
            case ExecuteOperation(operation=CallTool(call=call)):
                called[message.envelope.key].append(call.name)
            case other:
                called[message.envelope.key].append(other.NAME)
    for names in called.values():
        assert len(names) == 1 or names == [ReadFile.TOOL] * len(names)
        assert len(names) <= max(1, min(world.reads, MOST_READS))
    # Of its deadline and the end of its question, whichever counts.
    assert all(count == 1 for count in timers.values())


async def check(world: World) -> None:
    """Raises `AssertionError` naming what does not hold."""
    assert not world.faults, world.faults
    assert await _rows(world, "effects") == 0, "rows left behind in the effects ledger"
    assert await _rows(world, "outbox") == 0, "rows left behind in the outbox"
    for stream_id in await _streams(world):
        run_id = stream_id.removeprefix("run-")
        story = await _story(world, stream_id)
        assert verify(story) == [], "versions are contiguous and hashes hold"
        ends = [stored.version for stored in story if stored.type in TERMINAL]
        assert ends == [len(story)], f"one terminal event, and nothing after it: {[stored.type for stored in story]}"
        assert world.announced.get(run_id) == set(range(1, len(story) + 1)), "everything was announced"
        facts = [stored.decode() for stored in story]
        _check_approvals(facts)
        _check_installed(facts, installs=world.installs)
        await _check_effects(world, facts)
        await _check_files(world, facts)
        await _check_children(world, facts)


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
        elif not isinstance(fact, events.ToolCallStarted) or fact.name != Shell.TOOL:
            continue
        elif any(isinstance(each, events.InputRequired) for each in facts):
            assert always or fact.tool_call_id in allowed, f"{fact.tool_call_id} was carried out unasked"


def _check_installed(facts: Sequence[Event], *, installs: bool) -> None:
    """What a run depends on is installed once, and before its model is asked."""
    names = [fact.name for fact in facts if isinstance(fact, events.StepCompleted) and fact.dependencies is not None]
    thinks = any(isinstance(fact, events.StepStarted) and fact.name == "think" for fact in facts)
    assert names == ["install"] if installs and thinks else names in ([], ["install"])


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
            assert isinstance(fact, (CallEnded, events.ExecEnded))
            attempts[effect_id] = fact.attempt
            _check_outcome(fact)
    for fact in answers:
        if isinstance(fact, events.ToolCallCompleted) and fact.name == Delegate.TOOL:
            continue
        assert attempts.get(fact.effect_id) == fact.attempt, "the run was told another outcome than was recorded"


def _check_outcome(fact: CallEnded | events.ExecEnded) -> None:
    """What fails, fails of what the schedule made fail, and not of what workers do to each other."""
    if fact.attempt > MAX_ATTEMPTS:
        assert fact.outcome in {Outcome.WORKER_LOST, Outcome.CANCELED}, f"{fact.effect_id} was tried too often"
    if fact.outcome is Outcome.FAILED:
        reason = fact.error_reason if isinstance(fact, CallEnded) else fact.reason
        assert reason in {"overloaded", "sandbox_error", "database_unavailable"}, f"{fact.effect_id} failed: {reason}"


async def _check_files(world: World, facts: Sequence[Event]) -> None:
    """Every command's line is in the files once: in each checkpoint, and in the patch."""
    called = [fact for fact in facts if isinstance(fact, events.ToolCallCompleted)]
    for fact in called:
        if fact.name == ReadFile.TOOL:
            assert fact.output.splitlines() == await world.lines_at(fact.checkpoint), "a read saw other files"
    written = [fact for fact in called if fact.name == Shell.TOOL]
    taken_over = [
        text for fact in called if fact.name == Delegate.TOOL for text in await world.lines_at(fact.checkpoint)
    ]
    for number, fact in enumerate(written, start=1):
        assert await world.lines_at(fact.checkpoint) == [*taken_over, *(line(each) for each in range(number))]
    patches = [fact.artifact.digest for fact in facts if isinstance(fact, events.ArtifactCreated)]
    collected = any(isinstance(fact, events.StepCompleted) and fact.name == "collect" for fact in facts)
    newest = called[-1].checkpoint if called else ""
    assert patches == ([newest] if collected and newest else [])
    if isinstance(facts[-1], events.RunCompleted):
        assert len(written) == world.lines, "the run completed without all of its lines"


async def _check_children(world: World, facts: Sequence[Event]) -> None:
    """What a run was told of a child is how that ended, and the files that it goes on with are those of the child. A
    child has what its parent gave it, and ends before it could be missed."""
    started = {fact.child_run_id: fact for fact in facts if isinstance(fact, SubagentStarted)}
    ended = [fact for fact in facts if isinstance(fact, SubagentEnded)]
    assert max(Counter(fact.child_run_id for fact in ended).values(), default=1) == 1, "a child has ended twice"
    for child_id, fact in started.items():
        story = [stored.decode() for stored in await _story(world, run_stream(child_id))]
        [submitted] = [each for each in story if isinstance(each, events.RunSubmitted)]
        assert (submitted.limits, submitted.deadline_at) == (fact.limits, fact.deadline_at)
    for fact in ended:
        story = [stored.decode() for stored in await _story(world, run_stream(fact.child_run_id))]
        end = story[-1]
        assert isinstance(end, events.RunEnded)
        if fact.status_reason == LOST:
            continue
        assert end.NAME == f"run.{fact.status}"
        assert (end.steps, end.usage, end.patch) == (fact.steps, fact.usage, fact.patch)
        told = [
            each for each in facts if isinstance(each, events.ToolCallCompleted) and each.effect_id == fact.effect_id
        ]
        completed = isinstance(end, events.RunCompleted)
        assert all(each.checkpoint == (fact.checkpoint if completed else "") for each in told)


async def _streams(world: World) -> list[str]:
    """Of all runs, those that other runs have started included."""
    rows = await world.database.fetch(
        "SELECT stream_id FROM events WHERE stream_id LIKE 'run-%' AND stream_version = 1"
    )
    return [row["stream_id"] for row in rows]


async def _rows(world: World, table: str) -> int:
    return int((await world.database.fetch(f"SELECT count(*) FROM {table}"))[0][0])


async def _story(world: World, stream_id: str) -> Sequence[StoredEvent]:
    return await EventLog(world.database).read_stream(stream_id)
