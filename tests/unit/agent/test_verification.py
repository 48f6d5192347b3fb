"""A run that asks for it completes only if its patch has passed in a workspace of its own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from codeagent.agent.decide import GRACE
from codeagent.messages import commands, events
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.values import Outcome, RunLimits, VerifyPatch
from codeagent.messages.verification import PatchVerdict, Verification
from tests.unit.agent.scenario import DIGEST, Scenario, call, names

ASKED = Verification(command="make check", protected=("tests/",))


def submitted(**limits: int) -> Scenario:
    """A run whose model has said that it is done, and whose patch is collected."""
    run = Scenario(RunLimits(**limits), verification=ASKED)
    run.prepared()
    run.model(call("write_file", path="a", content="b"))
    run.sandbox(checkpoint=DIGEST)
    run.model(call("submit", summary="done"))
    run.collected()
    return run


def verified(run: Scenario) -> events.RunVerified:
    return next(event for event in run.events if isinstance(event, events.RunVerified))


def ended(run: Scenario) -> events.RunEnded:
    last = run.events[-1]
    assert isinstance(last, events.RunEnded)
    return last


def test_what_was_collected_is_judged_before_the_run_ends() -> None:
    run = submitted()
    command = run.open_effect.command
    assert isinstance(command, commands.ExecuteOperation)
    assert command.operation == VerifyPatch(verification=ASKED)
    assert (command.base, command.checkpoint) == (DIGEST, DIGEST)
    assert not run.state.status.terminal


def test_a_patch_that_passes_completes_the_run() -> None:
    run = submitted()
    use = CommandUse(commands=1, wall_ms=1, cpu_ms=1, output_bytes=1)
    decision = run.sandbox(exit_code=0, restored=("tests/a.py",), used=use)
    assert names(decision) == ["run.verified", "run.step.completed", "run.completed"]
    assert (verified(run).verdict, verified(run).restored) == (PatchVerdict.PASSED, ("tests/a.py",))
    assert ended(run).message == "done"
    assert run.state.used == use


@pytest.mark.parametrize(
    ("reason", "exit_code", "verdict"),
    [("exit", 1, PatchVerdict.FAILED), ("timeout", None, PatchVerdict.ERROR), ("oom", 137, PatchVerdict.ERROR)],
)
def test_a_patch_that_does_not_pass_fails_the_run_and_is_kept(
    reason: str, exit_code: int | None, verdict: PatchVerdict
) -> None:
    run = submitted()
    run.sandbox(reason=reason, exit_code=exit_code)
    assert verified(run).verdict is verdict
    end = ended(run)
    assert (end.NAME, end.status_reason) == ("run.failed", "verification_failed")
    assert end.patch is not None


@pytest.mark.parametrize(
    ("outcome", "error", "reason"),
    [
        (Outcome.FAILED, "sandbox_error", "sandbox_error"),
        (Outcome.FAILED, "quota_exceeded", "quota_exceeded"),
        (Outcome.FAILED, "patch_conflict", "verification_failed"),
        (Outcome.WORKER_LOST, "worker_lost", "worker_lost"),
    ],
)
def test_a_patch_that_nobody_could_judge_has_not_passed(outcome: Outcome, error: str, reason: str) -> None:
    run = submitted()
    run.sandbox(outcome, reason=error, error_reason=error)
    assert verified(run).verdict is PatchVerdict.ERROR
    assert (ended(run).NAME, ended(run).status_reason) == ("run.failed", reason)


def test_only_a_run_that_would_complete_is_judged() -> None:
    run = Scenario(RunLimits(max_steps=1), verification=ASKED)
    run.prepared()
    run.model(call("shell", command="make"))
    run.sandbox()
    assert names(run.collected())[-1] == "run.failed"
    assert ended(run).status_reason == "max_turns_exceeded"


def test_who_cancels_meanwhile_ends_the_run() -> None:
    run = submitted()
    assert run.cancel().cancel_effects
    assert names(run.sandbox(Outcome.CANCELED)) == ["run.canceled"]
    assert run.state.patch is not None


def test_a_deadline_that_passes_meanwhile_leaves_no_run_completed() -> None:
    run = submitted(deadline_seconds=60)
    run.later(60 + GRACE / timedelta(seconds=1))
    assert names(run.timer("deadline")) == ["run.failed"]
    assert ended(run).status_reason == "deadline_exceeded"
