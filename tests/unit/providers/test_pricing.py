"""What calls cost and how much models take."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from codeagent.messages.conversation import Usage
from codeagent.providers.pricing import CAUTIOUS_CONTEXT_WINDOW, Pricing, TokenPrices
from codeagent.providers.registry import ProviderSettings

USAGE = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=600_000, cache_write_tokens=100_000)


def cost(pricing: Pricing, model: str, usage: Usage = USAGE) -> Decimal | None:
    price = pricing.price(model)
    return None if price is None else price.cost(usage)


def test_the_operators_prices_count_each_kind_of_token() -> None:
    prices = TokenPrices(input_usd=Decimal(3), output_usd=Decimal(15), cache_read_usd=Decimal("0.3"),
                         cache_write_usd=Decimal("3.75"))  # fmt: skip
    assert prices.cost(USAGE) == Decimal("0.9") + Decimal("0.18") + Decimal("0.375") + Decimal("1.5")


def test_cache_tokens_cost_as_input_unless_said() -> None:
    assert TokenPrices(input_usd=Decimal(3), output_usd=Decimal(15)).cost(USAGE) == Decimal("4.5")


def test_the_operators_price_goes_before_the_list() -> None:
    free = TokenPrices(input_usd=Decimal(0), output_usd=Decimal(0))
    assert cost(Pricing("openai", prices={"gpt-5": (free,)}), "gpt-5") == 0


def test_known_models_of_a_vendor_are_priced_from_the_bundled_list() -> None:
    found = cost(Pricing("anthropic"), "claude-sonnet-4-5", Usage(input_tokens=1000, output_tokens=1000))
    assert found is not None
    assert 0 < found < 1


def test_an_unknown_price_is_none_and_not_zero() -> None:
    assert Pricing("openai").price("no-such-model") is None
    assert Pricing("openai", "http://127.0.0.1:11434/v1").price("gpt-5") is None


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
        assert prices.cost(usage) == cost(Pricing(vendor), model, usage)
    assert Pricing("openai").prices("no-such-model") is None
    assert Pricing("openai", "http://127.0.0.1:11434/v1").prices("gpt-5") is None


OLD = TokenPrices(input_usd=Decimal(10), output_usd=Decimal(20))
NEW = TokenPrices.model_validate({"from": "2026-11-01", "input_usd": "1", "output_usd": "2"})
LATER = TokenPrices.model_validate({"from": "2027-01-01", "input_usd": "5", "output_usd": "6"})
DATED = Pricing("openai", prices={"m": (LATER, OLD, NEW)})


@pytest.mark.parametrize(
    ("moment", "price"),
    [
        ("2026-10-31T23:59:59Z", OLD),
        ("2026-11-01T00:00:00Z", NEW),
        ("2026-12-31T23:59:59Z", NEW),
        ("2027-01-01T00:30:00+01:00", NEW),
        ("2027-06-01T00:00:00Z", LATER),
    ],
)
def test_the_price_is_that_of_the_day_of_utc_on_which_the_call_begins(moment: str, price: TokenPrices) -> None:
    assert DATED.price("m", datetime.fromisoformat(moment)) == price


def test_a_model_priced_from_a_later_day_on_is_priced_by_the_list_until_then() -> None:
    pricing = Pricing("openai", prices={"gpt-5": (LATER,)})
    before, after = (pricing.price("gpt-5", datetime(year, 6, 1, tzinfo=UTC)) for year in (2026, 2027))
    assert before is not None
    assert after is not None
    assert (before.told.source, after.told.source) == ("list", "operator")


def test_a_price_has_a_name_by_which_it_is_found_again() -> None:
    told = [price.told for price in (OLD, NEW, LATER)]
    assert [each.version for each in told] == ["undated", "2026-11-01", "2027-01-01"]
    assert len({each.digest for each in told}) == 3
    assert TokenPrices(input_usd=Decimal("10.00"), output_usd=Decimal(20)).told == OLD.told, "however it is written"
    listed = Pricing("openai").price("gpt-5")
    assert listed is not None
    assert listed.told.version.startswith("genai-prices ")
    assert listed.told == Pricing("openai").price("gpt-5").told  # type: ignore[union-attr]  # it was there before


def test_the_operators_file_gives_one_price_or_several_by_day() -> None:
    prices = {"one": {"input_usd": "1", "output_usd": "2"}, "two": [{"from": "2026-11-01", "input_usd": 1,
              "output_usd": 2}, {"input_usd": 3, "output_usd": 4}]}  # fmt: skip
    settings = ProviderSettings.model_validate(
        {"name": "a", "kind": "openai", "base_url": "http://x", "prices": prices}
    )
    assert [price.starts_on for price in settings.prices["two"]] == [None, date(2026, 11, 1)]
    assert len(settings.prices["one"]) == 1


@pytest.mark.parametrize(
    "prices",
    [
        [],
        [{"input_usd": 1, "output_usd": 2}] * 2,
        [{"from": "2026-11-01", "input_usd": 1, "output_usd": 2}] * 2,
        {"from": "soon", "input_usd": 1, "output_usd": 2},
        {"from": "2026-11-01", "input_usd": -1, "output_usd": 2},
    ],
)
def test_prices_that_contradict_each_other_are_refused(prices: object) -> None:
    given = {"name": "a", "kind": "openai", "base_url": "http://x", "prices": {"m": prices}}
    with pytest.raises(ValidationError):
        ProviderSettings.model_validate(given)
