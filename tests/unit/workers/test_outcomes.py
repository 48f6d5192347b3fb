"""Each way for a command to end, from the driver's record to what a client and the model are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from codeagent import clock
from codeagent.agent.prompt import Transcript
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.messages import events, results
from codeagent.messages.conversation import ToolMessage
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.values import Outcome
from codeagent.sandboxes.protocol import ExecRecord, ExecSpec, OutputSink, Reason, SandboxFailure, Workspace
from codeagent.sandboxes.scripted import ScriptedDriver
from codeagent.workers.bounds import Bounds
from codeagent.workers.effect import Ended, Work
from codeagent.workers.sandbox import SandboxPerformer
from tests.acceptance.checks import archive_of
from tests.unit.agent.scenario import Scenario, call


class EndingDriver(ScriptedDriver):
    """Whose commands all end in one way."""

    def __init__(self, end: ExecRecord | SandboxFailure) -> None:
        super().__init__()
        self._end = end

    async def run(self, workspace: Workspace, spec: ExecSpec, sink: OutputSink) -> ExecRecord:
        if isinstance(self._end, SandboxFailure):
            raise self._end
        return self._end


def record(reason: Reason, exit_code: int | None, *limits_hit: str, detail: str = "") -> ExecRecord:
    return ExecRecord(
        reason=reason,
        exit_code=exit_code,
        signal=None,
        stdout=b"printed",
        stderr=b"",
        stdout_seen_bytes=7,
        stderr_seen_bytes=0,
        limits_hit=limits_hit,
        wall_seconds=1.5,
        cpu_seconds=0.5,
        peak_memory_bytes=1 << 20,
        driver="scripted",
        level=ScriptedDriver.level,
        detail=detail,
    )


@dataclass
class Told:
    fact: events.ExecEnded
    event: events.ToolCallCompleted | events.ToolCallFailed
    model: ToolMessage


async def ended(folder: Path, end: ExecRecord | SandboxFailure) -> Told:
    """One command of a run, through the worker, the agent and the prompt."""
    store = LocalArtifactStore(folder)
    await store.start()
    base = await store.put("ten_a", archive_of({"a": "a"}))
    run = Scenario()
    run.submit()
    run.sandbox(base=base, checkpoint="")
    run.model(call("shell", command="make"))
    effect = run.open_effect
    envelope = Envelope(effect.id, effect.command.NAME, 1, "/test", clock.now(), "ten_a", "run_1", effect.id)
    work = Work(Message(envelope, effect.command), Claim(effect.id, clock.new_uuid(), 1, False))

    async def nowhere(_key: str, _value: bytes) -> None: ...

    performer = SandboxPerformer(
        EndingDriver(end), store, nowhere, answers_topic="t", limits=Bounds(), most_workspaces=1
    )
    came = await _performed(performer, work)
    assert isinstance(came.fact, events.ExecEnded)
    assert isinstance(came.answer, results.SandboxResult)
    run.when(came.answer)
    transcript = Transcript()
    for event in run.events:
        transcript.add(event)
    event = next(each for each in run.events if isinstance(each, events.ToolCallCompleted | events.ToolCallFailed))
    turn = next(each for _, each in transcript.turns if isinstance(each, ToolMessage))
    return Told(came.fact, event, turn)


async def _performed(performer: SandboxPerformer, work: Work) -> Ended:
    """As the loop does after the last attempt."""
    try:
        return await performer.perform(work)
    except SandboxFailure as error:
        return performer.ended(work, Outcome.FAILED, error)


@pytest.mark.parametrize(
    ("reason", "exit_code", "limits_hit", "told"),
    [
        (Reason.OK, 0, (), "exit code: 0\nprinted"),
        (Reason.EXIT, 2, (), "exit code: 2\nprinted"),
        (Reason.TIMEOUT, None, (), "reason: timeout\nprinted"),
        (Reason.OOM, 137, ("memory",), "exit code: 137\nreason: oom\nprinted\n[limits hit: memory]"),
        (Reason.OUTPUT_LIMIT, None, (), "reason: output_limit\nprinted"),
        (Reason.KILLED, 159, ("seccomp",), "exit code: 159\nreason: killed\nprinted\n[limits hit: seccomp]"),
    ],
)
async def test_a_command_that_ran_is_told_of_with_its_reason_everywhere(
    tmp_path: Path, reason: Reason, exit_code: int | None, limits_hit: tuple[str, ...], told: str
) -> None:
    found = await ended(tmp_path, record(reason, exit_code, *limits_hit))
    assert (found.fact.outcome, found.fact.reason, found.fact.exit_code) == (Outcome.DONE, reason, exit_code)
    assert found.fact.limits_hit == limits_hit
    assert (found.fact.memory_limit_bytes, found.fact.output_bytes, found.fact.retryable) == (1 << 30, 7, None)
    assert isinstance(found.event, events.ToolCallCompleted)
    assert (found.event.reason, found.event.exit_code) == (reason, exit_code)
    assert found.event.used is not None
    assert (found.event.used.wall_ms, found.event.used.cpu_ms, found.event.used.output_bytes) == (1_500, 500, 7)
    assert (found.model.text, found.model.is_error) == (told, reason is not Reason.OK)


@pytest.mark.parametrize(
    ("end", "code", "retryable", "error"),
    [
        (record(Reason.SANDBOX_ERROR, None, detail="no bwrap"), "sandbox_error", True, "no bwrap"),
        (SandboxFailure("no memory for it"), "sandbox_error", True, "no memory for it"),
        (SandboxFailure("gone", reason="closed", retryable=False), "closed", False, "gone"),
        (
            SandboxFailure("used up until midnight", reason="quota_exceeded", retryable=False),
            "quota_exceeded",
            False,
            "used up until midnight",
        ),
    ],
)
async def test_one_that_did_not_start_is_told_of_with_why_and_whether_to_try_again(
    tmp_path: Path, end: ExecRecord | SandboxFailure, code: str, retryable: bool, error: str
) -> None:
    found = await ended(tmp_path, end)
    assert (found.fact.outcome, found.fact.reason, found.fact.retryable) == (Outcome.FAILED, code, retryable)
    assert isinstance(found.event, events.ToolCallFailed)
    assert (found.event.code, found.event.error, found.event.retryable) == (code, error, retryable)
    assert found.event.effect_id == found.fact.effect_id
    assert (found.model.text, found.model.is_error) == (error, True)


def test_every_reason_of_a_driver_is_in_one_of_the_tables() -> None:
    """Besides those that are no end of a command: a run that was canceled, a worker that was lost."""
    ran = {Reason.OK, Reason.EXIT, Reason.TIMEOUT, Reason.OOM, Reason.OUTPUT_LIMIT, Reason.KILLED}
    assert set(Reason) == ran | {Reason.SANDBOX_ERROR, Reason.CANCELED, Reason.WORKER_LOST}
