"""A run that another one has started: bound to its parent's time, and its end told where it is waited for."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from codeagent.agent.delegation import abandoned
from codeagent.agent.draft import Decision
from codeagent.messages import commands, events
from codeagent.messages.conversation import Usage
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.subagents import Parent, SubagentResult
from codeagent.messages.values import Outcome, RunLimits, RunStatus
from tests.unit.agent.scenario import DIGEST, RUN, START, Scenario, call
from tests.unit.agent.test_delegation import ASKS, CHANGED, Leading

PARENT = Parent(run_id="run_p", effect_id=UUID(int=5), principal="usr_p", deadline_at=START + timedelta(seconds=100))


def reply(decision: Decision) -> SubagentResult:
    [order] = [order for order in decision.orders if isinstance(order.data, SubagentResult)]
    result = order.data
    assert isinstance(result, SubagentResult)
    assert (order.run_id, result.run_id, result.effect_id) == ("run_p", "run_p", UUID(int=5))
    return result


def test_a_child_ends_for_its_parent_with_its_words_files_and_use() -> None:
    child = Scenario(parent=PARENT)
    child.prepared()
    assert (child.state.run.principal, child.state.deadline_at) == ("usr_p", PARENT.deadline_at)
    child.model(call("shell", command="x"), cost_usd=Decimal("0.5"))
    child.sandbox(checkpoint=CHANGED, used=CommandUse(commands=1))
    assert child.model(text="w" * 3_000, text_ref=DIGEST).orders == ()
    result = reply(child.collected())
    assert (result.status, result.child_run_id, result.checkpoint) == (RunStatus.COMPLETED, RUN, CHANGED)
    assert (result.text, result.text_ref) == ("w" * 3_000, DIGEST)
    assert (result.steps, result.cost_usd, result.used.commands) == (2, Decimal("0.5"), 1)
    assert result.patch is not None


def test_a_child_counts_what_its_own_children_used() -> None:
    child = Leading(parent=PARENT)
    child.hands_on()
    child.child_ends(steps=3, cost_usd=Decimal(1), usage=Usage(input_tokens=50))
    child.model(call("submit", "s", summary="done"))
    result = reply(child.collected())
    assert (result.steps, result.cost_usd, result.usage.input_tokens) == (5, Decimal(1), 70)
    assert result.text == "done"


def test_a_child_that_its_parent_stops_says_so() -> None:
    child = Scenario(parent=PARENT)
    child.submit()
    child.when(commands.CancelRun(run_id=RUN), actor="run_p")
    result = reply(child.sandbox(Outcome.CANCELED))
    assert (result.status, result.status_reason) == (RunStatus.CANCELED, "canceled_by_parent")


def test_a_child_that_begins_too_late_tells_its_parent() -> None:
    child = Scenario(parent=PARENT)
    child.later(200)
    result = reply(child.submit(expires_at=PARENT.deadline_at))
    assert result.status_reason == "queue_timeout"


def test_a_childs_deadline_holds_while_it_waits_for_a_person() -> None:
    child = Scenario(parent=PARENT, approvals=ASKS)
    child.prepared()
    child.model(call("shell", command="x"))
    assert child.state.approval is not None
    assert child.state.approval.expires_at == PARENT.deadline_at
    child.later(40)
    child.answer()
    assert child.state.deadline_at == PARENT.deadline_at


def test_a_run_that_ends_without_deciding_tells_its_family() -> None:
    child = Leading(parent=PARENT, limits=RunLimits(max_cost_usd=Decimal(2), max_steps=8))
    grandchild = child.hands_on()
    failed = events.RunFailed(status_reason="internal_error")
    stop, answer = abandoned(RUN, child.events, failed)
    assert (stop.run_id, type(stop.data)) == (grandchild.run_id, commands.CancelRun)
    assert isinstance(answer.data, SubagentResult)
    assert (answer.data.status_reason, answer.data.cost_usd) == ("internal_error", Decimal(2))
    child.child_ends()
    assert [order.run_id for order in abandoned(RUN, child.events, failed)] == ["run_p"]
    assert [order.run_id for order in abandoned(RUN, [child.command()], failed)] == ["run_p"]
