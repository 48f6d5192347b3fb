"""What the agent decides, message by message."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from codeagent.messages import commands, events
from codeagent.messages.conversation import FinishReason, ToolCall, Usage
from codeagent.messages.values import CallTool, CollectPatch, Outcome, PrepareFiles, RunLimits, RunStatus
from tests.unit.agent.scenario import DIGEST, START, Scenario, call, names


def test_a_submit_starts_the_run_and_asks_for_its_files() -> None:
    run = Scenario()
    decision = run.submit()
    assert names(decision) == ["run.submitted", "run.started", "run.step.started"]
    deadline, prepare = decision.effects
    assert deadline.kind == "timer"
    assert deadline.due_at == START + timedelta(seconds=1800)
    assert isinstance(prepare.command, commands.ExecuteOperation)
    assert isinstance(prepare.command.operation, PrepareFiles)
    assert run.state.status is RunStatus.WORKING


def test_a_second_submit_changes_nothing() -> None:
    run = Scenario()
    run.submit()
    decision = run.submit()
    assert decision.events == ()
    assert decision.effects == ()


def test_a_submit_that_waited_too_long_fails_as_queue_timeout() -> None:
    run = Scenario()
    decision = run.submit(expires_at=START - timedelta(seconds=1))
    assert names(decision) == ["run.submitted", "run.failed"]
    assert run.state.status_reason == "queue_timeout"
    assert decision.ends_run


def test_prepared_files_lead_to_a_model_call_that_names_the_version_to_fold() -> None:
    run = Scenario()
    decision = run.prepared()
    assert names(decision) == ["run.step.completed", "run.step.started"]
    command = decision.effects[0].command
    assert isinstance(command, commands.GenerateReply)
    assert command.at_version == run.state.version
    assert decision.settled == (run.effects[1].id,)


def test_files_that_cannot_be_prepared_end_the_run_at_once() -> None:
    run = Scenario()
    run.submit()
    decision = run.sandbox(Outcome.FAILED, error="no such archive")
    assert names(decision) == ["run.failed"]
    assert run.state.status_reason == "sandbox_error"


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("address_refused", "source_refused"),
        ("not_found", "source_not_found"),
        ("too_large", "source_too_large"),
        ("fetch_failed", "source_unavailable"),
    ],
)
def test_a_source_that_cannot_be_had_is_told_apart_from_a_sandbox_that_fails(why: str, reason: str) -> None:
    run = Scenario()
    run.submit()
    run.sandbox(Outcome.FAILED, error="why", error_reason=why)
    assert run.state.status_reason == reason


def test_tool_calls_of_one_message_run_one_after_the_other() -> None:
    run = Scenario()
    run.prepared()
    first = run.model(call("shell", "a", command="one"), call("shell", "b", command="two"))
    assert names(first) == ["message.completed", "tool.call.started"]
    second = run.sandbox(output="1")
    assert names(second) == ["tool.call.completed", "tool.call.started"]
    third = run.sandbox(output="2")
    assert names(third) == ["tool.call.completed", "run.step.started"]
    operations = [effect.command.operation for effect in run.effects if effect.kind == "sandbox"]
    assert [op.call.id for op in operations if isinstance(op, CallTool)] == ["a", "b"]


def test_each_operation_starts_from_the_checkpoint_of_the_last() -> None:
    run = Scenario()
    run.prepared()
    run.model(call("shell", "a", command="one"), call("shell", "b", command="two"))
    run.sandbox(checkpoint="sha256:" + "b" * 64)
    command = run.open_effect.command
    assert isinstance(command, commands.ExecuteOperation)
    assert command.checkpoint == "sha256:" + "b" * 64
    assert command.base == DIGEST


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (ToolCall(id="x", name="no_such_tool"), "unsupported_tool"),
        (ToolCall(id="x", name="shell", arguments="{not json"), "malformed_arguments"),
        (ToolCall(id="x", name="shell", arguments='{"cmd": "ls"}'), "invalid_arguments"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_answered_and_the_run_goes_on(bad: ToolCall, code: str) -> None:
    run = Scenario()
    run.prepared()
    decision = run.model(bad)
    assert names(decision) == ["message.completed", "tool.call.failed", "run.step.started"]
    failed = decision.events[1]
    assert isinstance(failed, events.ToolCallFailed)
    assert failed.code == code


def test_submit_collects_the_patch_and_completes_with_its_summary() -> None:
    run = Scenario()
    run.prepared()
    decision = run.model(call("submit", summary="done"))
    assert names(decision) == ["message.completed", "run.step.started"]
    command = run.open_effect.command
    assert isinstance(command, commands.ExecuteOperation)
    assert isinstance(command.operation, CollectPatch)
    end = run.collected()
    assert names(end) == ["artifact.created", "run.step.completed", "run.completed"]
    completed = end.events[-1]
    assert isinstance(completed, events.RunCompleted)
    assert completed.message == "done"
    assert completed.patch is not None
    assert completed.steps == 1


def test_a_message_without_a_tool_call_is_the_last_word() -> None:
    run = Scenario()
    run.prepared()
    run.model(text="Nothing to do.")
    end = run.sandbox()
    assert names(end)[-1] == "run.completed"


def test_a_message_cut_at_its_length_is_continued() -> None:
    run = Scenario()
    run.prepared()
    assert names(run.model(text="so far", finish=FinishReason.LENGTH)) == ["message.completed", "run.step.started"]
    assert run.open_effect.kind == "provider"


@pytest.mark.parametrize(
    ("limits", "usage", "cost", "reason"),
    [
        (RunLimits(max_steps=1), Usage(), None, "max_turns_exceeded"),
        (RunLimits(max_tokens=1000), Usage(input_tokens=900, output_tokens=100), None, "max_tokens_exceeded"),
        (RunLimits(max_cost_usd=Decimal("0.5")), Usage(), Decimal("0.5"), "budget_exceeded"),
    ],
)
def test_a_used_up_limit_ends_the_run_and_keeps_its_patch(
    limits: RunLimits, usage: Usage, cost: Decimal | None, reason: str
) -> None:
    run = Scenario(limits)
    run.prepared()
    run.model(call("shell", command="ls"), usage=usage, cost_usd=cost)
    run.sandbox()
    end = run.collected()
    failed = end.events[-1]
    assert isinstance(failed, events.RunFailed)
    assert failed.status_reason == reason
    assert failed.patch is not None


def test_a_reply_nobody_waits_for_is_ignored() -> None:
    run = Scenario()
    run.prepared()
    run.model(call("shell", command="ls"))
    stale = next(effect for effect in run.effects if effect.kind == "provider")
    run.effects.append(stale)
    decision = run.model(text="again")
    assert decision.events == ()
    assert decision.settled == ()


def test_a_failed_model_call_ends_the_run_and_collects_what_was_done() -> None:
    run = Scenario()
    run.prepared()
    run.model_fails("overloaded")
    end = run.collected()
    assert names(end)[-1] == "run.failed"
    assert run.state.status_reason == "provider_error"


@pytest.mark.parametrize("reason", ["budget_exceeded", "budget_exhausted", "price_unknown"])
def test_a_call_that_may_not_be_paid_for_ends_the_run_for_that_reason(reason: str) -> None:
    run = Scenario()
    run.prepared()
    run.model_fails(reason)
    run.collected()
    assert (run.state.status, run.state.status_reason) == (RunStatus.FAILED, reason)


@pytest.mark.parametrize("outcome", [Outcome.WORKER_LOST])
def test_a_lost_call_ends_the_run_as_worker_lost(outcome: Outcome) -> None:
    run = Scenario()
    run.prepared()
    run.model_fails("", outcome)
    run.collected()
    assert run.state.status_reason == "worker_lost"


def test_cancel_asks_the_open_effect_to_stop_and_ends_on_its_reply() -> None:
    run = Scenario()
    run.prepared()
    decision = run.cancel()
    assert names(decision) == ["run.cancel_requested"]
    assert decision.cancel_effects
    assert [effect.due_at for effect in decision.effects] == [START + timedelta(seconds=30)]
    end = run.model_fails("", Outcome.CANCELED)
    assert names(end) == ["run.canceled"]


def test_cancel_without_a_reply_ends_after_the_grace() -> None:
    run = Scenario()
    run.prepared()
    run.cancel()
    run.later(30)
    assert names(run.timer("cancel_grace")) == ["run.canceled"]


def test_a_second_cancel_changes_nothing() -> None:
    run = Scenario()
    run.prepared()
    run.cancel()
    assert run.cancel().events == ()


def test_a_cancel_before_its_submit_wins() -> None:
    run = Scenario()
    assert names(run.cancel()) == ["run.cancel_requested"]
    decision = run.submit()
    assert names(decision) == ["run.submitted", "run.canceled"]
    assert decision.effects == ()


def test_nothing_moves_a_run_that_has_ended() -> None:
    run = Scenario()
    run.prepared()
    run.cancel()
    run.model_fails("", Outcome.CANCELED)
    for decision in (run.submit(), run.cancel(), run.timer("deadline"), run.model(text="late")):
        assert decision.events == ()
        assert decision.effects == ()


def test_the_deadline_stops_the_open_effect_and_keeps_the_patch() -> None:
    run = Scenario(RunLimits(deadline_seconds=60))
    run.prepared()
    run.later(60)
    decision = run.timer("deadline")
    assert decision.cancel_effects
    run.model_fails("", Outcome.CANCELED)
    run.collected()
    assert run.state.status_reason == "deadline_exceeded"


def test_a_deadline_that_fires_early_changes_nothing() -> None:
    run = Scenario(RunLimits(deadline_seconds=60))
    run.prepared()
    decision = run.timer("deadline")
    assert not decision.cancel_effects
    assert decision.events == ()


def test_a_reply_that_comes_after_the_deadline_starts_no_call() -> None:
    run = Scenario(RunLimits(deadline_seconds=60))
    run.prepared()
    run.later(60)
    assert names(run.model(call("shell", command="ls"))) == ["message.completed", "run.step.started"]
    run.collected()
    assert run.state.status_reason == "deadline_exceeded"


def test_a_run_that_answers_to_nothing_ends_half_a_minute_after_its_deadline() -> None:
    run = Scenario(RunLimits(deadline_seconds=60))
    run.prepared()
    run.later(90)
    assert names(run.timer("deadline")) == ["run.failed"]
    assert run.state.status_reason == "deadline_exceeded"


def test_the_same_stream_leads_to_the_same_decisions() -> None:
    def play() -> list[tuple[str, str]]:
        run = Scenario()
        run.prepared()
        run.model(call("shell", command="ls"))
        run.sandbox()
        run.model(call("submit", summary="s"))
        run.collected()
        return [(effect.kind, str(effect.id)) for effect in run.effects] + [(e.NAME, "") for e in run.events]

    assert play() == play()


def test_every_effect_has_an_id_of_its_own() -> None:
    run = Scenario()
    run.prepared()
    for number in range(5):
        run.model(call("shell", f"c{number}", command="ls"))
        run.sandbox()
    ids = [effect.id for effect in run.effects]
    assert len(set(ids)) == len(ids)
