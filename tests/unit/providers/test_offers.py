"""What callers may know of the providers: names and figures, no key, no address."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from codeagent.providers.offers import ModelOffer, Offers
from codeagent.providers.pricing import TokenPrices
from codeagent.providers.registry import ProviderRegistry, ProviderSettings

VENDOR = ProviderSettings(name="openai", kind="openai", api_key_file=Path("/none"), models=("gpt-5", "tomorrow"))
OWN = ProviderSettings(
    name="local",
    kind="openai",
    base_url="http://models.internal:8000/team-a/v1",
    context_window=32_768,
    models=("qwen",),
    prices={"qwen": TokenPrices(input_usd=Decimal("0.1"), output_usd=Decimal("0.2"))},
)
ANY = ProviderSettings(name="anthropic", kind="anthropic", api_key="file:/none")  # type: ignore[arg-type]

OFFERS = Offers(ProviderRegistry([VENDOR, OWN, ANY]).settings())


def test_a_provider_shows_its_host_and_whether_it_has_a_key() -> None:
    seen = {offer.name: (offer.host, offer.key_configured, offer.models) for offer in OFFERS.providers()}
    assert seen == {
        "builtin": (None, False, ("builtin/repair",)),
        "openai": (None, True, ("openai/gpt-5", "openai/tomorrow")),
        "local": ("models.internal", False, ("local/qwen",)),
        "anthropic": (None, True, ("anthropic/*",)),
    }


async def test_a_model_shows_what_is_known_of_it_and_no_more() -> None:
    seen = {offer.id: offer for offer in await OFFERS.models()}
    assert seen["local/qwen"] == ModelOffer("local/qwen", "local", 32_768, OWN.prices["qwen"][0])
    assert seen["openai/tomorrow"] == ModelOffer("openai/tomorrow", "openai", None, None)
    assert seen["anthropic/*"] == ModelOffer("anthropic/*", "anthropic", None, None)
    listed = seen["openai/gpt-5"]
    assert listed.context_window is not None
    assert listed.context_window > 100_000
    assert listed.prices is not None
    assert 0 < listed.prices.input_usd < listed.prices.output_usd
    built_in = seen["builtin/repair"].prices
    assert built_in is not None
    assert built_in.input_usd == built_in.output_usd == 0


def test_every_model_that_is_shown_by_name_can_be_asked_for() -> None:
    registry = ProviderRegistry([VENDOR, OWN, ANY])
    shown = [model for offer in OFFERS.providers() for model in offer.models if not model.endswith("*")]
    assert all(registry.supports(model) for model in shown)
