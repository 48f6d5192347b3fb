"""Conversations as vendors accept them, whatever happened to them before."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from codeagent.messages.conversation import (
    AssistantMessage,
    ChatMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from codeagent.providers.history import NO_ANSWER, call_ids, repair, with_ids

texts = st.text(max_size=12)
ids = st.sampled_from(["", "a", "b", "call_1_0", "x" * 60, "ünïcode", "a b"])
calls = st.builds(ToolCall, id=ids, name=texts, arguments=st.one_of(texts, st.just('{"a": 1}'), st.just("[1]")))
messages = st.lists(
    st.one_of(
        st.builds(SystemMessage, text=texts),
        st.builds(UserMessage, text=texts),
        st.builds(AssistantMessage, text=texts, tool_calls=st.lists(calls, max_size=3).map(tuple)),
        st.builds(ToolMessage, tool_call_id=ids, name=texts, text=texts),
    ),
    max_size=12,
)


@given(messages)
def test_every_call_has_one_id_and_its_answer_right_behind_it(conversation: list[ChatMessage]) -> None:
    repaired = repair(conversation)
    open_ids: list[str] = []
    seen: set[str] = set()
    for message in repaired:
        if isinstance(message, ToolMessage):
            assert message.tool_call_id == open_ids.pop(0)
            continue
        assert open_ids == []
        if isinstance(message, AssistantMessage):
            assert message.text.strip() or message.tool_calls
            open_ids = [call.id for call in message.tool_calls]
            assert len({*seen, *open_ids}) == len(seen) + len(open_ids)
            seen.update(open_ids)
            assert all(isinstance(json.loads(call.arguments), dict) for call in message.tool_calls)
            assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call.name) for call in message.tool_calls)
        else:
            assert message.text.strip()
    assert open_ids == []


@given(messages)
def test_the_same_conversation_always_comes_out_the_same_and_stays_so(conversation: list[ChatMessage]) -> None:
    once = repair(conversation)
    assert repair(conversation) == once
    assert repair(once) == once


def test_a_sound_conversation_is_not_touched() -> None:
    sound = (
        SystemMessage(text="You fix code."),
        UserMessage(text="Fix it."),
        AssistantMessage(text="Looking.", tool_calls=(ToolCall(id="a", name="shell", arguments='{"command": "ls"}'),)),
        ToolMessage(tool_call_id="a", name="shell", text="README.md"),
        AssistantMessage(text="Done."),
    )
    assert repair(sound) == sound


def test_a_call_nobody_answered_gets_an_answer_that_says_so() -> None:
    repaired = repair([AssistantMessage(tool_calls=(ToolCall(id="a", name="shell"),)), UserMessage(text="Go on.")])
    assert repaired[1] == ToolMessage(tool_call_id="a", name="shell", text=NO_ANSWER, is_error=True)
    assert repaired[2] == UserMessage(text="Go on.")


def test_an_answer_nobody_asked_for_is_not_lost() -> None:
    (message,) = repair([ToolMessage(tool_call_id="gone", name="shell", text="42 passed")])
    assert isinstance(message, UserMessage)
    assert "42 passed" in message.text


def test_new_ids_come_from_the_place_and_avoid_those_in_use() -> None:
    seen = {"call_7_0"}
    named = with_ids([ToolCall(id="", name="x"), ToolCall(id="pyd_ai_" + "0" * 32, name="y")], seen, 7)
    assert [call.id for call in named] == ["call_7_0x", "call_7_1"]
    assert seen == {"call_7_0", "call_7_0x", "call_7_1"}


def test_call_ids_are_those_of_the_model() -> None:
    assert call_ids([AssistantMessage(tool_calls=(ToolCall(id="a", name="x"),)), UserMessage(text="b")]) == {"a"}
