"""Prices of the vendors' models from the bundled list, which knows from when on each holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING

from codeagent.messages.conversation import Usage
from codeagent.messages.prices import PriceTold

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

_PACKAGE = "genai-prices"


@dataclass(frozen=True)
class ListedPrice:
    """What a listed model costs at one moment, by length of the prompt where the vendor asks for more for long ones."""

    listed: ModelPrice

    @cached_property
    def told(self) -> PriceTold:
        digest = sha256(repr(self.listed).encode()).hexdigest()[:16]
        return PriceTold(source="list", version=f"{_PACKAGE} {version(_PACKAGE)}", digest=digest)

    def cost(self, usage: Usage) -> Decimal:
        from genai_prices import Usage as ListedUsage  # noqa: PLC0415

        counted = ListedUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        return self.listed.calc_price(counted)["total_price"]

    def base(self) -> tuple[Decimal, Decimal, Decimal | None, Decimal | None]:
        """For a million tokens of a prompt of ordinary length: input, output, read from a cache, written to one."""
        read, write = self.listed.cache_read_mtok, self.listed.cache_write_mtok
        return (
            _base(self.listed.input_mtok),
            _base(self.listed.output_mtok),
            None if read is None else _base(read),
            None if write is None else _base(write),
        )


def listed_model(vendor: str, base_url: str | None, model: str) -> ModelInfo | None:
    """A model of the vendor, or of the vendor that listens at `base_url`."""
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  # half a second, not wanted at every start

    try:
        return get_snapshot().find_provider_model(model, None, None if base_url else vendor, base_url)[1]
    except LookupError:
        return None


def listed_price(vendor: str, base_url: str | None, model: str, at: datetime) -> ListedPrice | None:
    """None for a model that the list does not know, or whose vendor does not price by tokens alone."""
    found = listed_model(vendor, base_url, model)
    price = None if found is None else found.get_prices(at)
    if price is None or price.input_mtok is None or price.output_mtok is None:
        return None
    return ListedPrice(price)


def _base(price: Decimal | TieredPrices | None) -> Decimal:
    if price is None:
        return Decimal(0)
    return price if isinstance(price, Decimal) else price.base
