"""What a model is told, and what is left out when there is too much of it."""

from __future__ import annotations

from uuid import UUID

from codeagent.agent.exchanges import INTERRUPTED
from codeagent.agent.prompt import Transcript, build
from codeagent.messages import events
from codeagent.messages.conversation import FinishReason, ToolCall, ToolMessage, Usage

EFFECT = UUID(int=1)


def said(*calls: ToolCall, text: str = "") -> events.MessageCompleted:
    return events.MessageCompleted(
        effect_id=EFFECT, step=1, attempt=1, text=text, tool_calls=calls, finish_reason=FinishReason.STOP, model="m",
        usage=Usage(),
    )  # fmt: skip


def answered(call_id: str, output: str, exit_code: int | None = 0) -> events.ToolCallCompleted:
    return events.ToolCallCompleted(
        tool_call_id=call_id, name="shell", step=1, effect_id=EFFECT, attempt=1, output=output, reason="ok",
        exit_code=exit_code, checkpoint="",
    )  # fmt: skip


def transcript(*happened: events.Event) -> Transcript:
    told = Transcript(task="fix it")
    for event in happened:
        told.add(event)
    return told


def shell(call_id: str) -> ToolCall:
    return ToolCall(id=call_id, name="shell", arguments='{"command": "ls"}')


def test_the_task_comes_first_and_every_answer_follows_its_call() -> None:
    messages = build(transcript(said(shell("a"), text="looking"), answered("a", "files")), 100_000)
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[1].text == "fix it"
    assert messages[3].text == "files"


def test_a_call_without_an_answer_is_answered_as_interrupted() -> None:
    messages = build(transcript(said(shell("a"), shell("b")), answered("a", "files"), said(text="next")), 100_000)
    tools = [message for message in messages if isinstance(message, ToolMessage)]
    assert [(message.tool_call_id, message.text) for message in tools] == [("a", "files"), ("b", INTERRUPTED)]
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]


def test_an_answer_without_its_call_is_left_out() -> None:
    told = transcript(answered("ghost", "boo"), said(text="hi"), answered("other", "boo"))
    assert [message.role for message in build(told, 100_000)] == ["system", "user", "assistant"]


def test_a_failed_command_is_marked_as_an_error() -> None:
    messages = build(transcript(said(shell("a")), answered("a", "no", exit_code=1)), 100_000)
    assert isinstance(messages[-1], ToolMessage)
    assert messages[-1].is_error


def test_a_run_that_replays_another_goes_on_with_its_words_and_files_under_its_own_task() -> None:
    replayed = transcript(
        said(shell("a"), text="looking"), answered("a", "files").model_copy(update={"checkpoint": "x"})
    )
    told = Transcript(task="fix it")
    told.follow(replayed)
    told.add(said(shell("b"), text="more"))
    messages = build(told, 100_000)
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert [messages[place].text for place in (1, 2, 4)] == ["fix it", "looking", "more"]
    assert told.checkpoint == "x"


def test_versions_count_on_from_those_of_the_run_that_is_replayed() -> None:
    first, second, third = transcript(said(text="a"), said(text="b")), Transcript(), Transcript()
    second.follow(first)
    second.add(said(text="c"))
    third.follow(second)
    third.add(said(text="d"))
    assert [version for version, _ in third.turns] == [1, 2, 3, 4]
    assert third.version == 1
