"""Versions of a recorded run at which another could go on: every call answered, nobody asked, no end in sight."""

from __future__ import annotations

import pytest

from codeagent.agent.continuing import Conversation, whole_until
from codeagent.messages.conversation import FinishReason, ToolCall
from codeagent.messages.envelope import Event
from codeagent.messages.values import ApprovalDecision, ApprovalPolicy, Files
from tests.golden import NAMES, recording
from tests.unit.agent.scenario import DIGEST, Scenario, call

CHANGED = "sha256:" + "c" * 64
LONG = "sha256:" + "d" * 64


def conversation(run: Scenario) -> Conversation:
    read = Conversation()
    for event in run.events:
        read.add(event)
    return read


def whole(run: Scenario) -> bool:
    return conversation(run).is_whole


def test_it_is_whole_where_a_model_is_asked_and_not_before_its_calls_are_answered() -> None:
    run = Scenario()
    run.prepared()
    assert whole(run)
    run.model(call("read_file", "a", path="a"), call("read_file", "b", path="b"))
    assert not whole(run)
    run.sandbox(call_id="a")
    assert not whole(run)
    run.sandbox(call_id="b")
    assert whole(run)


def test_it_is_not_whole_while_a_person_is_asked() -> None:
    run = Scenario(approvals=ApprovalPolicy(tools=("shell",)))
    run.prepared()
    run.model(call("shell", command="ls"))
    assert not whole(run)
    run.answer(ApprovalDecision.REJECT)
    assert whole(run)


def test_a_run_that_is_about_to_end_or_has_ended_has_nothing_to_go_on_with() -> None:
    run = Scenario()
    run.prepared()
    run.model(text="done")
    assert not whole(run)
    run.collected()
    assert run.state.status.terminal
    assert not whole(run)


def test_a_reply_is_no_place_to_go_on_from_until_it_is_known_whether_there_is_more() -> None:
    run = Scenario()
    run.prepared()
    run.model(text="half a sen", finish=FinishReason.LENGTH)
    versions = range(len(run.events), 0, -1)
    read = {version: whole_until(run.events, version) for version in versions}
    said = next(number for number, event in enumerate(run.events, 1) if event.NAME == "message.completed")
    assert (read[said], read[said + 1]) == (said - 1, said + 1)


def test_files_are_those_of_the_moment() -> None:
    run = Scenario()
    run.submit()
    assert conversation(run).files is None
    run.sandbox(base=DIGEST, checkpoint="")
    run.model(call("shell", command="make"))
    assert conversation(run).files == Files(base=DIGEST)
    run.sandbox(checkpoint=CHANGED)
    assert conversation(run).files == Files(base=DIGEST, checkpoint=CHANGED)


def test_arguments_that_were_put_aside_are_named() -> None:
    run = Scenario()
    run.prepared()
    run.model(ToolCall(id="a", name="write_file", arguments="", arguments_ref=LONG), call("shell", "b", command="ls"))
    assert conversation(run).arguments == [LONG]


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_run_is_whole_wherever_it_asks_its_model_and_at_no_version_of_an_open_call(name: str) -> None:
    facts = [message.data for message in recording(name) if isinstance(message.data, Event)]
    asked, answered = set[str](), set[str]()
    for version, fact in enumerate(facts, start=1):
        asked |= {call.id for call in getattr(fact, "tool_calls", ())}
        answered |= {fact.tool_call_id} if fact.NAME in {"tool.call.completed", "tool.call.failed"} else set()  # type: ignore[attr-defined]
        if fact.NAME == "run.step.started" and fact.name == "think":  # type: ignore[attr-defined]
            assert whole_until(facts, version) == version
        if asked - answered:
            assert whole_until(facts, version) < version
    assert whole_until(facts, 0) == 1
