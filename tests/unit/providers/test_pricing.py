"""What calls cost and how much models take."""

from __future__ import annotations

from decimal import Decimal

from codeagent.messages.conversation import Usage
from codeagent.providers.pricing import CAUTIOUS_CONTEXT_WINDOW, Pricing, TokenPrices

USAGE = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=600_000, cache_write_tokens=100_000)


def test_the_operators_prices_count_each_kind_of_token() -> None:
    prices = TokenPrices(input_usd=Decimal(3), output_usd=Decimal(15), cache_read_usd=Decimal("0.3"),
                         cache_write_usd=Decimal("3.75"))  # fmt: skip
    assert prices.cost(USAGE) == Decimal("0.9") + Decimal("0.18") + Decimal("0.375") + Decimal("1.5")


def test_cache_tokens_cost_as_input_unless_said() -> None:
    assert TokenPrices(input_usd=Decimal(3), output_usd=Decimal(15)).cost(USAGE) == Decimal("4.5")


def test_the_operators_price_goes_before_the_list() -> None:
    free = Pricing("openai", prices={"gpt-5": TokenPrices(input_usd=Decimal(0), output_usd=Decimal(0))})
    assert free.cost(USAGE, "gpt-5") == 0


def test_known_models_of_a_vendor_are_priced_from_the_bundled_list() -> None:
    cost = Pricing("anthropic").cost(Usage(input_tokens=1000, output_tokens=1000), "claude-sonnet-4-5")
    assert cost is not None
    assert 0 < cost < 1


def test_the_model_that_answered_is_priced_and_else_the_one_that_was_asked() -> None:
    usage = Usage(input_tokens=1000, output_tokens=10)
    assert Pricing("openai").cost(usage, "a-model-of-tomorrow", "gpt-5") == Pricing("openai").cost(usage, "gpt-5")


def test_an_unknown_price_is_none_and_not_zero() -> None:
    assert Pricing("openai").cost(USAGE, "no-such-model") is None
    assert Pricing("openai", "http://127.0.0.1:11434/v1").cost(USAGE, "gpt-5") is None


def test_context_windows_come_from_the_operator_then_the_list_then_caution() -> None:
    assert Pricing("openai", context_window=8192).context_window("gpt-5") == 8192
    assert Pricing("openai").context_window("gpt-5") > 100_000
    assert Pricing("openai", "http://127.0.0.1:1/v1").context_window("qwen") == CAUTIOUS_CONTEXT_WINDOW


def test_prices_of_the_list_are_those_that_calls_of_ordinary_length_cost() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=1_000, cache_read_tokens=400, cache_write_tokens=100)
    for vendor, model in (("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-5")):
        prices = Pricing(vendor).prices(model)
        assert prices is not None
        if prices.cache_write_usd is None:
            usage = usage.model_copy(update={"cache_write_tokens": 0})
        assert prices.cost(usage) == Pricing(vendor).cost(usage, model)
    assert Pricing("openai").prices("no-such-model") is None
    assert Pricing("openai", "http://127.0.0.1:11434/v1").prices("gpt-5") is None
