"""A conversation that comes too close to the model's window: what is left out, what stands for it, what never goes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeagent.agent.compaction import DOWN_TO, characters
from codeagent.agent.exchanges import size
from codeagent.agent.prompt import INSTRUCTIONS, Transcript, WindowTooSmall, build, compaction
from codeagent.messages import events
from codeagent.messages.conversation import AssistantMessage, ChatMessage, FinishReason, ToolCall, ToolMessage, Usage
from codeagent.messages.loop_events import Compaction, RunCompacted
from codeagent.messages.values import AgentDefinition

EFFECT = UUID(int=1)
DIFF = "diff --git a/a.py b/a.py\n-old\n+new\n"
CHECKPOINT = "sha256:" + "c" * 64


@dataclass
class Conversation:
    """A run's conversation, with its compactions recorded as they come."""

    window: int
    task: str = "fix it"
    transcript: Transcript = field(default_factory=Transcript)
    compactions: list[Compaction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transcript.task = self.task

    def exchange(self, *outputs: str, text: str = "", argument: str = "ls") -> None:
        number = self.transcript.version
        names = [f"c{number}_{each}" for each in range(len(outputs))]
        calls = tuple(ToolCall(id=name, name="shell", arguments=json.dumps({"command": argument})) for name in names)
        self.transcript.add(
            events.MessageCompleted(
                effect_id=EFFECT, step=1, attempt=1, text=text, tool_calls=calls, finish_reason=FinishReason.STOP,
                model="m", usage=Usage(),
            )
        )  # fmt: skip
        for name, output in zip(names, outputs, strict=True):
            self.transcript.add(
                events.ToolCallCompleted(
                    tool_call_id=name, name="shell", step=1, effect_id=EFFECT, attempt=1, output=output, reason="ok",
                    exit_code=0, checkpoint=CHECKPOINT,
                )
            )  # fmt: skip

    def asked(self, diff: str = DIFF) -> tuple[ChatMessage, ...]:
        """What the model is asked next, as a provider worker would."""
        found = compaction(self.transcript, self.window)
        messages = build(self.transcript, self.window, found, diff)
        if found is not None:
            self.compactions.append(found)
            self.transcript.add(RunCompacted(effect_id=EFFECT, compaction=found))
        return messages


def outputs(messages: tuple[ChatMessage, ...]) -> list[str]:
    return [message.text for message in messages if isinstance(message, ToolMessage)]


def test_what_fits_is_told_as_it_was() -> None:
    talk = Conversation(100_000)
    talk.exchange("x" * 5_000)
    assert outputs(talk.asked()) == ["x" * 5_000]
    assert talk.compactions == []


def test_the_outputs_of_old_calls_go_first_and_say_how_to_see_them_again() -> None:
    talk = Conversation(4_000)
    talk.exchange("first line\n" + "x" * 20_000)
    talk.exchange("y" * 2_000)
    old, new = outputs(talk.asked())
    assert old.startswith("first line\nxxx")
    assert old.endswith("[19811 characters left out; call shell again to see them as they are now]")
    assert new == "y" * 2_000
    assert [(one.outputs_until, one.exchanges_until) for one in talk.compactions] == [(1, 0)]


def test_long_arguments_of_old_calls_go_with_their_outputs_and_stay_json() -> None:
    talk = Conversation(4_000)
    talk.exchange("done", argument="z" * 20_000)
    talk.exchange("y" * 2_000)
    reply = next(message for message in talk.asked() if isinstance(message, AssistantMessage))
    command = json.loads(reply.tool_calls[0].arguments)["command"]
    assert command.startswith("zzz")
    assert "characters left out]" in command
    assert len(command) < 300


def test_then_whole_exchanges_go_and_a_recap_with_the_diff_stands_for_them() -> None:
    talk = Conversation(6_000, task="Make the tests pass.")
    talk.exchange("o" * 100, text="My plan: look, change, check.", argument="cat a.py")
    for number in range(100):
        talk.exchange("o" * 100, text="t" * 300, argument=f"step {number}")
    messages = talk.asked()
    system, task, recap, *rest = messages
    assert (system.text, task.text) == (INSTRUCTIONS, "Make the tests pass.")
    assert recap.role == "user"
    assert "My plan: look, change, check." in recap.text
    assert '- shell {"command": "step 5' in recap.text
    assert DIFF in recap.text
    assert rest[-1].text == "o" * 100
    [made] = talk.compactions
    assert made.checkpoint == CHECKPOINT
    assert made.before_tokens > 6_000 > made.after_tokens


def test_a_compaction_leaves_room_so_that_what_follows_begins_as_the_call_before() -> None:
    talk = Conversation(8_000)
    before: tuple[ChatMessage, ...] = ()
    changed = 0
    for _ in range(120):
        talk.exchange("o" * 300, text="t" * 100)
        messages = talk.asked()
        changed += messages[: len(before)] != before
        before = messages
    assert changed == len(talk.compactions)
    assert 2 <= changed <= 12
    for one in talk.compactions:
        assert one.after_tokens <= 8_000 * DOWN_TO


def test_a_last_exchange_that_is_too_long_is_cut_longest_answer_first() -> None:
    talk = Conversation(4_000)
    talk.exchange("a" * 50_000, "short", "b" * 3_000)
    first, second, third = outputs(talk.asked())
    assert "characters left out" in first
    assert second == "short"
    assert third == "b" * 3_000


def test_instructions_that_fill_the_window_are_an_error_and_never_cut() -> None:
    talk = Conversation(3_000)
    talk.transcript.definition = AgentDefinition(id="a", digest=CHECKPOINT, instructions="i" * 9_000, tools=())
    with pytest.raises(WindowTooSmall) as refused:
        talk.asked()
    assert refused.value.code == "context_overflow"


def test_beside_long_instructions_the_recap_is_shorter_and_all_of_it_fits() -> None:
    talk = Conversation(16_000, task="k" * 32_000)
    talk.transcript.definition = AgentDefinition(id="a", digest=CHECKPOINT, instructions="i" * 45_000, tools=())
    for _ in range(3):
        talk.exchange("x" * 3_000, text="p" * 3_000)
        assert size(talk.asked("+" * 50_000)) <= characters(16_000)
    assert talk.compactions[-1].exchanges_until > 0


TEXTS = st.integers(0, 6_000).map(lambda length: "w" * length)
EXCHANGE = st.tuples(st.lists(TEXTS, max_size=4), TEXTS, TEXTS)


@settings(max_examples=40, deadline=None)
@given(
    window=st.integers(4_000, 30_000),
    task=st.integers(1, 32_000),
    talked=st.lists(EXCHANGE, max_size=25),
    changes=st.integers(0, 50_000),
)
def test_any_conversation_at_any_window_is_valid_fits_and_has_the_task_and_the_last_results(
    window: int, task: int, talked: list[tuple[list[str], str, str]], changes: int
) -> None:
    talk = Conversation(window, task=f"Task: {'k' * task}")
    for answers, text, argument in talked:
        talk.exchange(*answers, text=text, argument=argument)
        messages = talk.asked("+" * changes)
        assert messages == build(talk.transcript, window, None, "+" * changes), "the recorded compaction says it all"
        assert size(messages) <= characters(window)
        assert messages[0].role == "system"
        assert messages[1].text.startswith("Task: k")
        open_calls: list[str] = []
        for message in messages:
            if isinstance(message, ToolMessage):
                assert message.tool_call_id == open_calls.pop(0), "each answer follows its call"
            else:
                assert open_calls == [], "no call is left open"
            if isinstance(message, AssistantMessage):
                open_calls = [call.id for call in message.tool_calls]
                assert all(isinstance(json.loads(call.arguments), dict) for call in message.tool_calls)
        newest = messages[-len(answers) :] if answers else ()
        for output, message in zip(answers, newest, strict=True):
            assert isinstance(message, ToolMessage)
            assert message.text == output or "left out" in message.text
