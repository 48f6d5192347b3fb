"""Calls of one reply that only read are carried out side by side; nothing of the run depends on which ends first."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from codeagent.agent import tools
from codeagent.agent.calls import MOST_READS
from codeagent.agent.prompt import Transcript, build
from codeagent.messages import events
from codeagent.messages.conversation import ChatMessage, ToolCall
from codeagent.messages.sandbox_limits import CommandUse, SandboxLimits
from codeagent.messages.values import ApprovalPolicy, Outcome, RunLimits
from tests.unit.agent.scenario import Scenario, call, names


def read(name: str) -> ToolCall:
    return call("read_file", name, path=name)


def search(name: str) -> ToolCall:
    return call("search", name, pattern=name)


def shell(name: str) -> ToolCall:
    return call("shell", name, command=name)


def asked(*calls: ToolCall, **fields: object) -> Scenario:
    run = Scenario(**fields)  # type: ignore[arg-type]
    run.prepared()
    run.model(*calls)
    return run


def open_calls(run: Scenario) -> list[str]:
    return [pending.call.id for pending in run.state.open if pending.call is not None]


def conversation(run: Scenario) -> tuple[ChatMessage, ...]:
    transcript = Transcript()
    for event in run.events:
        transcript.add(event)
    return build(transcript, 100_000)


def test_calls_that_only_read_start_together_and_the_model_is_asked_after_the_last() -> None:
    run = asked(read("a"), search("b"), read("c"))
    assert names(run.sandbox(call_id="b")) == ["tool.call.completed"]
    assert names(run.sandbox(call_id="c")) == ["tool.call.completed"]
    assert names(run.sandbox(call_id="a")) == ["tool.call.completed", "run.step.started"]


def test_a_call_that_may_change_files_waits_for_those_before_it_and_those_after_it_wait_for_it() -> None:
    run = asked(read("a"), read("b"), shell("c"), read("d"), read("e"))
    assert open_calls(run) == ["a", "b"]
    run.sandbox(call_id="b")
    assert open_calls(run) == ["a"]
    run.sandbox(call_id="a")
    assert open_calls(run) == ["c"]
    run.sandbox(call_id="c")
    assert open_calls(run) == ["d", "e"]


def test_a_run_has_so_many_calls_open_at_most() -> None:
    run = asked(*(read(f"r{number}") for number in range(MOST_READS + 2)))
    assert len(open_calls(run)) == MOST_READS
    run.sandbox(call_id="r1")
    assert open_calls(run) == ["r0", "r2", "r3", "r4"]


def test_the_conversation_is_the_same_in_whatever_order_the_calls_end() -> None:
    def ended(order: tuple[str, ...]) -> Scenario:
        run = asked(read("a"), search("b"), read("c"), ToolCall(id="x", name="no_such_tool"), read("d"))
        for call_id in order:
            run.sandbox(call_id=call_id, output=f"in {call_id}", reason="error" if call_id == "c" else "ok")
        return run

    first, *others = (ended(order) for order in permutations("abcd"))
    answers = [(message.tool_call_id, message.text[:4]) for message in conversation(first)[3:]]  # type: ignore[union-attr]
    assert [call_id for call_id, _ in answers] == ["a", "b", "c", "x", "d"]
    for run in others:
        assert conversation(run) == conversation(first)
        assert run.state.progress == first.state.progress


def test_a_read_that_a_person_has_to_allow_is_asked_about_when_nothing_else_is_open() -> None:
    run = asked(read("a"), search("b"), approvals=ApprovalPolicy(tools=("search",)))
    assert open_calls(run) == ["a"]
    assert run.state.approval is None
    assert names(run.sandbox(call_id="a")) == ["tool.call.completed", "run.input_required"]
    run.answer()
    assert open_calls(run) == ["b"]


def test_where_a_runs_commands_are_counted_together_they_run_one_by_one() -> None:
    limits = RunLimits(sandbox=SandboxLimits(total_commands=2))
    run = asked(search("a"), search("b"), search("c"), limits=limits)
    assert open_calls(run) == ["a"]
    used = CommandUse(commands=1, wall_ms=1, cpu_ms=1, output_bytes=1)
    run.sandbox(call_id="a", used=used)
    run.sandbox(call_id="b", used=used)
    assert open_calls(run) == []
    assert run.state.ending is not None
    assert run.state.ending.reason == "sandbox_limit_exceeded"


def test_submit_waits_for_what_is_being_read() -> None:
    run = asked(read("a"), read("b"), call("submit", "s", summary="done"))
    run.sandbox(call_id="b")
    assert run.state.ending is None
    assert names(run.sandbox(call_id="a")) == ["tool.call.completed", "run.step.started"]
    assert run.state.ending is not None


def test_a_cancel_asks_all_of_them_to_stop_and_the_first_reply_ends_the_run() -> None:
    run = asked(read("a"), read("b"))
    assert run.cancel().cancel_effects
    assert names(run.sandbox(Outcome.CANCELED, call_id="b")) == ["run.canceled"]
    assert run.sandbox(Outcome.CANCELED, call_id="a").events == ()


def test_at_the_deadline_the_patch_is_collected_once_and_nothing_else_is_waited_for() -> None:
    run = asked(read("a"), read("b"), limits=RunLimits(deadline_seconds=60))
    run.later(60)
    assert run.timer("deadline").cancel_effects
    decision = run.sandbox(Outcome.CANCELED, call_id="b")
    assert names(decision) == ["run.step.started"]
    assert set(decision.settled) == {run.effect_of("a").id, run.effect_of("b").id}
    assert run.sandbox(Outcome.CANCELED, call_id="a").events == ()
    run.collected()
    assert run.state.status_reason == "deadline_exceeded"


def test_a_read_that_the_sandbox_fails_ends_the_run_and_leaves_no_row_of_the_others() -> None:
    run = asked(read("a"), read("b"), read("c"))
    run.sandbox(call_id="c")
    decision = run.sandbox(Outcome.FAILED, call_id="a", error_reason="sandbox_error", error="broken")
    assert names(decision) == ["tool.call.failed", "run.step.started"]
    assert set(decision.settled) == {run.effect_of("a").id, run.effect_of("b").id}
    assert run.sandbox(call_id="b").events == ()
    run.collected()
    assert run.state.status_reason == "sandbox_error"


def test_a_read_that_comes_back_twice_is_answered_once() -> None:
    run = asked(read("a"), read("b"))
    run.sandbox(call_id="a")
    decision = run.sandbox(call_id="a")
    assert (decision.events, decision.settled) == ((), ())
    assert open_calls(run) == ["b"]


KINDS = st.sampled_from([read, search, shell])


@settings(max_examples=40, deadline=None)
@given(kinds=st.lists(KINDS, min_size=1, max_size=9), draws=st.randoms(use_true_random=False))
def test_whatever_a_reply_asks_for_files_never_change_beside_another_call(kinds: list, draws) -> None:  # type: ignore[type-arg,no-untyped-def]
    calls = [kind(f"c{number}") for number, kind in enumerate(kinds)]
    run = asked(*calls)
    while opened := run.state.open:
        assert len(opened) == 1 or all(each.call is not None and each.call.name in tools.READING for each in opened)
        if opened[0].call is None:
            break
        run.sandbox(call_id=draws.choice(open_calls(run)), output="out")
    started = [event.tool_call_id for event in run.events if isinstance(event, events.ToolCallStarted)]
    assert started == [one.id for one in calls]
    answers = [message.tool_call_id for message in conversation(run)[3:]]  # type: ignore[union-attr]
    assert answers == started
