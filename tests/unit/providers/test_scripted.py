"""The twin's own habits; that it keeps every provider's promises is shown by the contract suite."""

from __future__ import annotations

import pytest

from codeagent.messages.conversation import AssistantMessage, ToolCall, UserMessage
from codeagent.providers.protocol import ModelRequest, ProviderError
from codeagent.providers.scripted import ScriptedProvider


async def ignore(_text: str) -> None:
    return None


def ask(*said: str) -> ModelRequest:
    told = [UserMessage(text="Fix it."), *(AssistantMessage(text=text) for text in said)]
    return ModelRequest(model="m", messages=tuple(told))


async def test_the_conversation_decides_which_answer_comes_so_that_many_can_share_a_script() -> None:
    provider = ScriptedProvider(["first", "second"])
    assert (await provider.generate(ask("first"), ignore)).message.text == "second"
    assert (await provider.generate(ask(), ignore)).message.text == "first"
    assert (await provider.generate(ask(), ignore)).message.text == "first"


async def test_an_error_is_raised_once() -> None:
    provider = ScriptedProvider([ProviderError("busy", reason="overloaded", retryable=True), "fine"])
    with pytest.raises(ProviderError, match="busy"):
        await provider.generate(ask(), ignore)
    assert (await provider.generate(ask(), ignore)).message.text == "fine"


async def test_a_script_that_is_over_says_so() -> None:
    with pytest.raises(ProviderError, match="scripted for 1 answers"):
        await ScriptedProvider(["only"]).generate(ask("only"), ignore)


async def test_a_function_sees_the_request_and_answers_with_calls() -> None:
    provider = ScriptedProvider(
        lambda request: AssistantMessage(tool_calls=(ToolCall(id="a", name="shell", arguments=request.model),))
    )
    reply = await provider.generate(ask(), ignore)
    assert reply.message.tool_calls[0].arguments == "m"
    assert reply.cost_usd == 0


async def test_a_conversation_too_long_for_its_window_is_refused() -> None:
    with pytest.raises(ProviderError) as refused:
        await ScriptedProvider(["x"], context_window=10).generate(ask("y" * 200), ignore)
    assert refused.value.reason == "context_overflow"
