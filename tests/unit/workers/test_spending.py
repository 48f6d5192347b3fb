"""The most that a model call can come to: more than it ever does."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from codeagent.messages.conversation import (
    AssistantMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from codeagent.providers.pricing import FREE, Pricing, TokenPrices
from codeagent.providers.protocol import ModelRequest, Price
from codeagent.workers.input_tokens import FRAME_TOKENS, InputTokens
from codeagent.workers.spending import LEAST_OUTPUT_TOKENS, worst_case

OWN = TokenPrices(input_usd=Decimal(3), output_usd=Decimal(15), cache_read_usd=Decimal(1), cache_write_usd=Decimal(4))
REQUEST = ModelRequest(
    model="m",
    messages=(
        SystemMessage(text="Be brief."),
        UserMessage(text="Ä€🎉 " * 1_000),
        AssistantMessage(text="", tool_calls=(ToolCall(id="c1", name="shell", arguments='{"command": "ls"}'),)),
        ToolMessage(tool_call_id="c1", name="shell", text="\x00\x01" * 1_000),
    ),
    tools=(ToolSpec(name="shell", description="Runs a command.", parameters={"type": "object"}),),
    max_output_tokens=8_192,
)
TOLD = InputTokens().most("run_1", "a/m", REQUEST)


def test_no_tokenizer_makes_more_of_a_text_than_its_bytes() -> None:
    texts = [message.text for message in REQUEST.messages]
    assert TOLD > sum(len(text.encode()) for text in texts)


def test_what_the_vendor_has_counted_takes_the_place_of_what_it_can_have_counted() -> None:
    known, said = InputTokens(), UserMessage(text="x" * 1_000)
    known.learn("run_1", "a/m", REQUEST, 3_000)
    longer = replace(REQUEST, messages=(*REQUEST.messages, said))
    assert known.most("run_1", "a/m", REQUEST) == 3_000
    assert known.most("run_1", "a/m", longer) == 3_000 + 1_000 + FRAME_TOKENS, "and what is new by its bytes"
    assert known.most("run_2", "a/m", REQUEST) == TOLD, "another run's conversation is another"
    assert known.most("run_1", "b/m", REQUEST) == TOLD, "another provider of that name counts for itself"
    known.learn("run_1", "b/m", REQUEST, 2_000)
    assert known.most("run_1", "a/m", REQUEST) == 3_000, "and takes nobody's place"


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, model="n"),
        replace(REQUEST, tools=()),
        replace(REQUEST, messages=REQUEST.messages[:2]),
        replace(REQUEST, messages=(SystemMessage(text="Be long."), *REQUEST.messages[1:])),
    ],
    ids=["model", "tools", "shorter", "changed"],
)
def test_another_beginning_is_counted_by_its_bytes(other: ModelRequest) -> None:
    known = InputTokens()
    known.learn("run_1", "a/m", REQUEST, 3)
    assert known.most("run_1", "a/m", other) == InputTokens().most("run_1", "a/m", other)


@pytest.mark.parametrize("name", ["claude-sonnet-4-5", "gpt-5", "own", "free"])
@pytest.mark.parametrize("read", [0, 1, 5])
@pytest.mark.parametrize("written", [0, 1, 5])
def test_nothing_that_a_vendor_may_count_costs_more_than_the_worst_case(name: str, read: int, written: int) -> None:
    listed = Pricing("anthropic" if name.startswith("claude") else "openai").price(name)
    price: Price | None = {"own": OWN, "free": FREE}.get(name, listed)
    assert price is not None
    worst = worst_case(REQUEST, TOLD, price)
    assert worst.input_usd is not None
    assert worst.output_usd is not None
    told = worst.input_tokens
    usage = Usage(
        input_tokens=told,
        output_tokens=worst.output_tokens,
        cache_read_tokens=told * read // 10,
        cache_write_tokens=told * written // 10 if name != "gpt-5" else 0,
    )
    assert price.cost(usage) <= worst.input_usd + worst.output_usd * worst.output_tokens


def test_without_a_price_there_are_tokens_alone() -> None:
    worst = worst_case(REQUEST, TOLD, None)
    assert (worst.input_usd, worst.output_usd, worst.output_tokens) == (None, None, 8_192)
    assert worst.least_output_tokens == LEAST_OUTPUT_TOKENS
