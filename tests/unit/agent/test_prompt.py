"""What a model is told, and what is left out when there is too much of it."""

from __future__ import annotations

from uuid import UUID

from codeagent.agent.prompt import ELIDED, INTERRUPTED, Transcript, build
from codeagent.messages import events
from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, ToolMessage, Usage

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
    messages = build(transcript(answered("ghost", "boo"), said(text="hi")), 100_000)
    assert [message.role for message in messages] == ["system", "user", "assistant"]


def test_a_failed_command_is_marked_as_an_error() -> None:
    messages = build(transcript(said(shell("a")), answered("a", "no", exit_code=1)), 100_000)
    assert isinstance(messages[-1], ToolMessage)
    assert messages[-1].is_error


def test_old_outputs_go_before_anything_else() -> None:
    told = transcript(
        said(shell("a")), answered("a", "x" * 20_000), said(shell("b")), answered("b", "y" * 2_000), said(text="now")
    )
    messages = build(told, 2_000)
    texts = [message.text for message in messages if isinstance(message, ToolMessage)]
    assert texts == [ELIDED, "y" * 2_000]


def test_whole_exchanges_go_when_outputs_are_not_enough_and_no_call_stays_open() -> None:
    happened: list[events.Event] = []
    for number in range(200):
        happened += [said(shell(str(number)), text="t" * 500), answered(str(number), "o" * 100)]
    messages = build(transcript(*happened), 4_000)
    assert sum(len(message.text) for message in messages) < 4_000 * 3.5
    calls = [call.id for message in messages if isinstance(message, AssistantMessage) for call in message.tool_calls]
    answers = [message.tool_call_id for message in messages if isinstance(message, ToolMessage)]
    assert calls == answers
    assert calls[-1] == "199"
