"""Recorded replies, given to another version: where it decides otherwise, and what it is told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from codeagent.agent.actions import Difference
from codeagent.agent.continuing import whole_until
from codeagent.agent.draft import Decision
from codeagent.agent.recording import steps_of
from codeagent.agent.replay import Divergence, Replay, RequestDifference, replay
from codeagent.errors import CodeAgentError
from codeagent.messages import events
from codeagent.messages.commands import SubmitRun
from codeagent.messages.conversation import Usage
from codeagent.messages.envelope import Envelope, Event, Message, Payload
from codeagent.messages.guidance import Guidance, GuidanceFile
from codeagent.messages.ids import derived_uuid
from codeagent.messages.loop_events import Compaction
from codeagent.messages.results import ProviderResult
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    CachePolicy,
    Dependencies,
    Outcome,
    RunLimits,
)
from tests.golden import NAMES, recording
from tests.unit.agent.scenario import DIGEST, RUN, Scenario, call

ALL = ("shell", "read_file", "write_file", "edit_file", "search", "submit")
GUIDANCE = Guidance(files=(GuidanceFile(path="AGENTS.md", digest=DIGEST, size_bytes=4, text="Run make."),))


def version(*tools: str, instructions: str = "", egress: tuple[str, ...] | None = None) -> AgentDefinition:
    return AgentDefinition(
        id="agt_other", digest="sha256:" + "e" * 64, instructions=instructions, tools=tools or ALL, egress=egress
    )


def again(stream: Sequence[Message], **changes: Any) -> Replay:
    """The stream, replayed by a version that would have submitted the run with `changes`."""
    steps = steps_of(stream)
    [submitted] = [step.message.data for step in steps if isinstance(step.message.data, SubmitRun)]
    return replay(steps, submitted.model_copy(update=changes))


def only(done: Replay) -> Divergence:
    [found] = done.divergences
    return found


def said(found: Divergence) -> list[tuple[object, object]]:
    """The two actions, by name."""
    return [tuple((action or {}).get("action") for action in (found.recorded, found.other))]


def names_of(stream: Sequence[Message]) -> list[str]:
    return [message.envelope.name for message in stream]


@dataclass
class Recorded(Scenario):
    """A scenario that keeps its stream."""

    stream: list[Message] = field(default_factory=list)

    def when(self, data: Payload, *, expires_at: datetime | None = None, actor: str = "usr_a") -> Decision:
        cause = derived_uuid(RUN, "message", str(len(self.stream)))
        decision = super().when(data, expires_at=expires_at, actor=actor)
        for event in decision.events:
            number = len(self.stream) + 1
            envelope = Envelope(
                id=derived_uuid(RUN, str(number)),
                name=event.NAME,
                version=1,
                source="/test",
                time=self.now,
                tenant_id="ten_a",
                key=RUN,
                correlation_id=derived_uuid(RUN, "submit"),
                causation_id=cause,
                sequence=number,
                actor_id=actor,
            )
            self.stream.append(Message(envelope, event))
        return decision


@pytest.mark.parametrize("name", NAMES)
def test_a_run_diverges_nowhere_from_itself(name: str) -> None:
    done = again(recording(name))
    assert (done.divergences, done.request, done.not_reproduced_at) == ((), None, None)
    assert done.decisions == done.recorded_decisions == len(steps_of(recording(name)))


def test_a_recording_of_before_that_repeats_what_persons_had_written_is_reproduced() -> None:
    run = Recorded(approvals=ApprovalPolicy(tools=("shell",)))
    run.prepared()
    run.model(call("shell", command="ls"))
    run.answer(ApprovalDecision.REJECT, "Not now.")
    run.cancel()
    run.model()
    repeated = {
        "tool.call.failed": {"error": "Refused. Their comment: Not now.", "approval_id": None},
        "run.canceled": {"message": "enough"},
    }
    stream = [
        replace(message, data=message.data.model_copy(update=repeated.get(message.envelope.name, {})))
        for message in run.stream
    ]
    assert stream != run.stream
    done = again(stream)
    assert (done.decisions, done.divergences, done.not_reproduced_at) == (done.recorded_decisions, (), None)


def test_the_replies_are_counted_with_what_they_used_and_cost() -> None:
    spent = again(recording("success")).spent
    assert (spent.replies, spent.usage.input_tokens, spent.usage.cache_read_tokens) == (4, 3_600, 1_200)
    assert spent.cost_usd == Decimal("0.0084")


def test_a_tool_that_is_not_offered_is_where_it_diverges() -> None:
    done = again(recording("success"), definition=version("read_file", "shell", "submit"))
    found = only(done)
    assert (found.kind, found.step, found.on) == ("action", 2, "provider.result")
    assert found.recorded is not None
    assert found.other is not None
    assert (found.recorded["action"], found.recorded["tool"]) == ("run_tool", "edit_file")
    assert (found.other["action"], found.other["code"]) == ("refuse_call", "unsupported_tool")
    assert Difference("/action", "run_tool", "refuse_call") in found.differs
    assert done.spent.replies == 2
    assert done.decisions < done.recorded_decisions


def test_both_agree_up_to_the_fact_that_differs() -> None:
    done = only(again(recording("success"), definition=version("read_file", "shell", "submit")))
    agreed = recording("success")[done.agreed_version - 1]
    assert (done.after_version, done.agreed_version, agreed.envelope.name) == (9, 10, "message.completed")
    done = only(again(recording("success"), limits=RunLimits(max_steps=2)))
    agreed = recording("success")[done.agreed_version - 1]
    assert (done.agreed_version, agreed.envelope.name) == (done.after_version + 1, "tool.call.completed")


def test_where_another_model_would_have_been_asked_both_agree_up_to_the_question() -> None:
    stream = recording("success")
    found = only(again(stream, model="other/model"))
    agreed = stream[found.agreed_version - 1].data
    assert (found.kind, found.recorded is not None and found.recorded["action"]) == ("terms", "call_model")
    assert isinstance(agreed, events.StepStarted)
    assert (agreed.name, agreed.step) == ("think", 1)
    facts = [message.data for message in stream if isinstance(message.data, Event)]
    assert whole_until(facts, found.agreed_version) == found.agreed_version


def test_a_tool_that_is_offered_now_is_called() -> None:
    found = only(again(recording("unknown-tool"), definition=version(instructions="Be brief.")))
    assert said(found) == [("refuse_call", "run_tool")]


def test_a_limit_that_ends_the_run_earlier() -> None:
    found = only(again(recording("success"), limits=RunLimits(max_steps=2)))
    assert said(found) == [("call_model", "collect")]
    assert found.other is not None
    assert found.other["ending"] == {"status": "failed", "reason": "max_turns_exceeded"}
    assert found.on == "sandbox.result"


def test_a_limit_that_lets_the_run_go_on() -> None:
    assert said(only(again(recording("limit-exceeded"), limits=RunLimits(max_steps=9)))) == [("collect", "call_model")]


def test_a_limit_that_is_not_reached_changes_no_decision() -> None:
    assert again(recording("success"), limits=RunLimits(max_steps=4)).divergences == ()


def test_an_approval_that_is_needed_or_not() -> None:
    asks = ApprovalPolicy(tools=("shell",))
    found = only(again(recording("success"), approvals=asks))
    assert said(found) == [("run_tool", "ask")]
    assert found.step == 3
    assert said(only(again(recording("approval-allowed"), approvals=None))) == [("ask", "run_tool")]


def test_a_question_that_would_have_expired_before_it_was_answered() -> None:
    run = Recorded(approvals=ApprovalPolicy(tools=("shell",), expires_seconds=600))
    run.prepared()
    run.model(call("shell", command="ls"))
    run.later(300)
    run.answer(ApprovalDecision.ALLOW_ONCE)
    run.sandbox()
    run.model(call("submit", summary="done"))
    run.collected()
    done = again(run.stream, approvals=ApprovalPolicy(tools=("shell",), expires_seconds=100))
    terms, found = done.divergences
    assert (terms.kind, [difference.pointer for difference in terms.differs]) == ("terms", ["/expires_at"])
    assert (found.kind, said(found)) == ("action", [("run_tool", "collect")])
    assert found.other is not None
    assert found.other["ending"]["reason"] == "approval_expired"
    assert done.spent.replies == 1


def test_a_question_that_would_still_be_open_when_it_expired() -> None:
    policy = ApprovalPolicy(tools=("shell", "edit_file"), expires_seconds=6_000)
    found = again(recording("approval-expired"), approvals=policy).divergences[-1]
    assert (found.kind, said(found)) == ("action", [("collect", None)])


def test_a_deadline_that_comes_earlier_or_later() -> None:
    found = only(again(recording("deadline"), limits=RunLimits(deadline_seconds=600)))
    assert said(found) == [("collect", None)]
    run = Recorded()
    run.prepared()
    run.later(100)
    run.model(call("shell", command="ls"))
    run.sandbox()
    run.model(text="done")
    run.collected()
    found = only(again(run.stream, limits=RunLimits(deadline_seconds=60)))
    assert (said(found), found.step) == ([("run_tool", "collect")], 1)


def test_a_run_that_a_person_has_canceled_is_canceled_in_every_version() -> None:
    assert again(recording("canceled"), limits=RunLimits(deadline_seconds=9_000)).divergences == ()


def test_another_model_is_told_once_and_the_replies_are_given_to_it_all_the_same() -> None:
    done = again(recording("success"), model="other/model")
    found = only(done)
    assert (found.kind, found.step) == ("terms", 1)
    assert found.differs == (Difference("/model", "test/m", "other/model"),)
    assert done.decisions == done.recorded_decisions


def test_what_commands_may_use_and_reach_are_terms_of_what_is_done() -> None:
    limits = RunLimits(command_timeout_seconds=7, sandbox=SandboxLimits(processes=50))
    done = again(recording("success"), definition=version(egress=("pypi.org:443",)), limits=limits)
    assert {found.kind for found in done.divergences} == {"terms"}
    pointers = {difference.pointer for found in done.divergences for difference in found.differs}
    assert pointers == {"/limits", "/egress", "/timeout_seconds"}
    assert done.decisions == done.recorded_decisions


def test_what_the_model_is_told_is_no_decision_but_is_said() -> None:
    done = again(recording("success"), definition=version(instructions="Be brief."))
    assert done.divergences == ()
    assert done.request == RequestDifference(1, ("instructions",))
    done = again(recording("success"), definition=version("read_file", "edit_file", "shell", "submit"))
    assert done.divergences == ()
    assert done.request == RequestDifference(1, ("tools",))


def test_replies_are_the_recorded_ones_whether_or_not_a_version_may_have_them_again() -> None:
    cached = version().model_copy(update={"cache": CachePolicy(ttl_seconds=60)})
    done = again(recording("success"), definition=cached)
    assert (done.divergences, done.request, done.spent.replies) == ((), None, 4)


def test_nothing_is_compared_from_where_the_recording_cannot_be_reproduced() -> None:
    stream = list(recording("tool-errors"))
    [place, *_] = [number for number, told in enumerate(stream) if isinstance(told.data, events.ToolCallFailed)]
    failed = stream[place].data
    stream[place] = Message(stream[place].envelope, failed.model_copy(update={"code": "unheard_of"}))
    done = again(stream, model="other/model")
    assert done.not_reproduced_at == place - 1
    assert [found.kind for found in done.divergences] == ["terms"]
    assert done.decisions < done.recorded_decisions


def test_a_run_that_the_platform_gave_up_is_replayed_as_far_as_it_was_decided() -> None:
    stream = list(recording("success"))[:-3]
    last = stream[-1].envelope
    envelope = replace(last, name="run.failed", causation_id=derived_uuid("another"), sequence=len(stream) + 1)
    stream.append(Message(envelope, events.RunFailed(status_reason="internal_error")))
    assert again(stream).decisions == len(steps_of(recording("success"))) - 1


def refused(stream: Sequence[Message]) -> str:
    with pytest.raises(CodeAgentError) as error:
        steps_of(stream)
    return error.value.code


def test_what_is_no_whole_recording_is_refused_by_name() -> None:
    stream = list(recording("success"))
    assert refused(stream[:-1]) == "run_not_ended"
    assert refused([]) == "run_not_ended"
    assert refused([*stream[:4], *stream[5:]]) == "incomplete_recording"
    odd = replace(stream[1].envelope, causation_id=derived_uuid("nobody"))
    assert refused([stream[0], Message(odd, stream[1].data), *stream[2:]]) == "unreplayable_event"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.WORKER_LOST, Outcome.CANCELED])
def test_what_failed_on_the_way_is_told_again_from_the_stream(outcome: Outcome) -> None:
    def stopped(run: Recorded) -> None:
        run.later(60 if outcome is Outcome.CANCELED else 0)

    def preparing(run: Recorded) -> None:
        run.submit()
        stopped(run)
        run.sandbox(outcome, error="no", error_reason="not_found")

    def thinking(run: Recorded) -> None:
        run.prepared()
        stopped(run)
        run.model_fails("content_filtered" if outcome is Outcome.FAILED else "", outcome)
        run.collected()

    def running(run: Recorded) -> None:
        run.prepared()
        run.model(call("shell", command="ls"))
        stopped(run)
        run.sandbox(outcome, error="", error_reason="quota_exceeded")
        run.collected()

    def collecting(run: Recorded) -> None:
        run.prepared()
        run.model(text="done")
        stopped(run)
        run.sandbox(outcome, error="no")

    def installing(run: Recorded) -> None:
        run.dependencies = Dependencies(install="pip install .", lock_files=("lock",))
        run.prepared()
        stopped(run)
        run.sandbox(outcome, error="no", error_reason="registry_unreachable")
        run.collected()

    for way in (preparing, installing, thinking, running, collecting):
        run = Recorded(limits=RunLimits(deadline_seconds=60))
        way(run)
        done = again(run.stream)
        assert done.not_reproduced_at is None, way.__name__
        assert done.decisions == len({message.envelope.causation_id for message in run.stream})


@pytest.mark.parametrize(("outcome", "reason"), [(Outcome.FAILED, "overloaded"), (Outcome.WORKER_LOST, "")])
def test_a_call_that_brought_nothing_is_told_again_with_what_it_used(outcome: Outcome, reason: str) -> None:
    run = Recorded()
    run.prepared()
    used = Usage(input_tokens=7)
    run.when(
        ProviderResult(
            effect_id=run.open_effect.id,
            run_id=RUN,
            attempt=2,
            outcome=outcome,
            model="test/model",
            usage=used,
            cost_usd=Decimal("0.5"),
            error_reason=reason,
            error="no",
        )
    )
    run.collected()
    done = again(run.stream)
    assert (done.not_reproduced_at, done.decisions) == (None, 4)
    assert (done.spent.replies, done.spent.usage, done.spent.cost_usd) == (0, used, Decimal("0.5"))


def test_a_reply_that_came_after_a_cancel_is_told_again_with_what_it_used() -> None:
    run = Recorded()
    run.prepared()
    run.cancel()
    run.model(text="too late")
    done = again(run.stream, limits=RunLimits(deadline_seconds=9_000))
    assert (done.not_reproduced_at, {found.kind for found in done.divergences}) == (None, set())


@pytest.mark.parametrize("installed", ["sha256:" + "b" * 64, None])
def test_a_run_that_has_dependencies_installed_is_told_again(installed: str | None) -> None:
    run = Recorded(dependencies=Dependencies(install="pip install .", lock_files=("lock",)))
    run.prepared()
    run.sandbox(dependencies=installed, exit_code=0 if installed else 1)
    if installed:
        run.model(text="done")
    run.collected()
    assert again(run.stream).not_reproduced_at is None


def test_a_run_that_waited_too_long_is_told_again() -> None:
    run = Recorded()
    run.submit(expires_at=run.now - timedelta(seconds=1))
    assert again(run.stream).decisions == 1


def test_a_run_that_was_canceled_before_it_was_submitted_is_told_again() -> None:
    run = Recorded()
    run.cancel()
    run.submit()
    assert again(run.stream).decisions == 2


def test_a_run_whose_end_did_not_come_in_time_is_told_again() -> None:
    run = Recorded(limits=RunLimits(deadline_seconds=60))
    run.prepared()
    run.later(100)
    run.timer("deadline")
    assert again(run.stream).decisions == 3
    for seconds, other in ((90, "stop"), (300, None)):
        found = only(again(run.stream, limits=RunLimits(deadline_seconds=seconds)))
        assert (found.on, said(found)) == ("run.timer.fire", [("end", other)])


def test_what_the_repository_says_to_agents_is_told_again() -> None:
    run = Recorded()
    run.submit()
    run.sandbox(base=DIGEST, guidance=GUIDANCE)
    run.model(text="done")
    run.collected()
    done = again(run.stream, definition=version(instructions="Be brief."))
    assert (done.divergences, done.not_reproduced_at) == ((), None)
    assert done.request == RequestDifference(1, ("instructions",))


def test_a_compacted_conversation_is_told_again() -> None:
    run = Recorded()
    run.prepared()
    run.model(call("shell", command="ls"), compaction=Compaction(outputs_until=5))
    run.sandbox()
    run.model(text="done")
    run.collected()
    assert names_of(run.stream).count("run.compacted") == 1
    assert again(run.stream).not_reproduced_at is None


def test_a_run_that_went_round_in_circles_is_told_again() -> None:
    run = Recorded()
    run.prepared()
    while run.state.ending is None:
        run.model(call("shell", f"c{run.state.model_calls}", command="ls"))
        run.sandbox()
    run.collected()
    assert run.state.status_reason == "stuck"
    assert names_of(run.stream).count("run.nudged") == 1
    assert again(run.stream).not_reproduced_at is None


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
@pytest.mark.parametrize("outcome", Outcome)
def test_reads_at_once_are_told_again_in_the_order_in_which_they_ended(
    outcome: Outcome, order: tuple[str, str, str]
) -> None:
    run = Recorded(limits=RunLimits(deadline_seconds=60))
    run.prepared()
    run.model(*(call("read_file", name, path=name) for name in order))
    first, second, last = sorted(order)
    run.sandbox(call_id=first)
    run.later(60 if outcome is Outcome.CANCELED else 0)
    run.sandbox(outcome, call_id=second, error="no", error_reason="sandbox_error")
    if outcome is Outcome.DONE:
        run.sandbox(call_id=last)
        run.model(text="done")
    run.collected()
    assert again(run.stream).not_reproduced_at is None
