"""What a run asks of models besides its own, and what calls that brought no message cost it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from codeagent.messages import commands, events
from codeagent.messages.calls import MessageFailed
from codeagent.messages.catalog import encode_data
from codeagent.messages.conversation import Usage
from codeagent.messages.values import Outcome, RunStatus
from tests.unit.agent.scenario import Scenario, call, names

USED = Usage(input_tokens=900, output_tokens=40)


def test_every_call_names_the_models_that_stand_in() -> None:
    run = Scenario(fallbacks=("test/other", "test/third"))
    run.prepared()
    run.model(call("shell", command="ls"))
    run.sandbox()
    calls = [effect.command for effect in run.effects if isinstance(effect.command, commands.GenerateReply)]
    assert [(command.model, command.fallbacks) for command in calls] == [
        ("test/model", ("test/other", "test/third"))
    ] * 2
    submitted = run.events[0]
    assert isinstance(submitted, events.RunSubmitted)
    assert submitted.fallbacks == ("test/other", "test/third")


def test_a_run_without_any_is_stored_and_asked_for_as_it_always_was() -> None:
    run = Scenario()
    run.prepared()
    assert b"fallbacks" not in encode_data(run.events[0]) + encode_data(run.open_effect.command)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.WORKER_LOST, Outcome.CANCELED])
def test_what_a_call_used_that_brought_no_message_counts_towards_the_run(outcome: Outcome) -> None:
    run = Scenario()
    run.prepared()
    run.model(call("shell", command="ls"), usage=USED, cost_usd=Decimal("0.25"))
    run.sandbox()
    failed = run.model_fails("timeout", outcome, usage=USED, cost_usd=Decimal("0.50"), model="test/other")
    assert names(failed)[0] == "message.failed"
    [fact] = [event for event in failed.events if isinstance(event, MessageFailed)]
    assert (fact.model, fact.reason, fact.usage, fact.cost_usd) == ("test/other", "timeout", USED, Decimal("0.50"))
    end = run.collected().events[-1]
    assert isinstance(end, events.RunFailed)
    assert (end.usage, end.cost_usd, end.steps) == (USED + USED, Decimal("0.75"), 1)


def test_a_reply_that_comes_after_a_cancel_was_paid_for_too() -> None:
    run = Scenario()
    run.prepared()
    run.cancel()
    late = run.model(text="done", usage=USED, cost_usd=Decimal("0.50"))
    assert names(late) == ["message.failed", "run.canceled"]
    end = late.events[-1]
    assert isinstance(end, events.RunCanceled)
    assert (end.usage, end.cost_usd) == (USED, Decimal("0.50"))
    assert run.state.status is RunStatus.CANCELED


def test_a_call_that_used_nothing_leaves_no_word() -> None:
    run = Scenario()
    run.prepared()
    assert names(run.model_fails("connection")) == ["run.step.started"]
