"""Which replies are kept, and what becomes of them on the way."""

from __future__ import annotations

from decimal import Decimal

import pytest

from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, ToolSpec, Usage
from codeagent.providers.protocol import ModelReply, ModelRequest
from codeagent.response_cache.reply import is_good, packed, unpacked

SHELL = ToolSpec(name="shell", description="", parameters={})
REQUEST = ModelRequest(model="m", messages=(), tools=(SHELL,))


def saying(text: str, reason: FinishReason = FinishReason.STOP) -> ModelReply:
    return ModelReply(AssistantMessage(text=text), finish_reason=reason)


def calling(name: str = "shell", arguments: str = '{"command": "ls"}') -> ModelReply:
    message = AssistantMessage(text="So.", tool_calls=(ToolCall(id="c1", name=name, arguments=arguments),))
    return ModelReply(message, Usage(input_tokens=9), Decimal(1), FinishReason.TOOL_CALLS, response_model="m-2026")


@pytest.mark.parametrize("reply", [saying("It is done."), calling()])
def test_a_whole_reply_is_good(reply: ModelReply) -> None:
    assert is_good(REQUEST, reply)


@pytest.mark.parametrize(
    "reply",
    [
        saying("It is", FinishReason.LENGTH),
        saying("I may not", FinishReason.CONTENT_FILTER),
        saying("Who knows", FinishReason.OTHER),
        saying(" \n"),
        calling(name="shel"),
        calling(arguments='{"command": "l'),
        calling(arguments='["ls"]'),
        calling(arguments=""),
    ],
)
def test_one_that_was_cut_off_or_that_nothing_can_be_done_with_is_not(reply: ModelReply) -> None:
    assert not is_good(REQUEST, reply)


def test_what_comes_back_has_used_nothing_and_cost_nothing() -> None:
    reply = calling()
    again = unpacked(REQUEST, packed(reply))
    assert again is not None
    assert (again.message, again.finish_reason, again.response_model) == (
        reply.message,
        FinishReason.TOOL_CALLS,
        "m-2026",
    )
    assert (again.usage, again.cost_usd) == (Usage(), None)


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[]", packed(calling())[:-2], packed(calling(name="other")), packed(saying(""))]
)
def test_what_would_not_be_kept_does_not_come_back(document: bytes) -> None:
    assert unpacked(REQUEST, document) is None
