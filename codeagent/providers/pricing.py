"""What a model call costs and how much a model can take, from the operator's own figures or the bundled price list."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from codeagent import clock
from codeagent.messages.conversation import Usage

CAUTIOUS_CONTEXT_WINDOW = 16_384
"""For a model nobody knows: small enough for most servers a team runs itself."""

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, TieredPrices

_MILLION = Decimal(1_000_000)


class TokenPrices(BaseModel):
    """US dollars for a million tokens. What is read from or written to a cache costs as input unless said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_usd: Decimal = Field(ge=0)
    output_usd: Decimal = Field(ge=0)
    cache_read_usd: Decimal | None = Field(default=None, ge=0)
    cache_write_usd: Decimal | None = Field(default=None, ge=0)

    def cache_usd(self) -> tuple[Decimal, Decimal]:
        """What is read from a cache, and what is written to one."""
        read = self.input_usd if self.cache_read_usd is None else self.cache_read_usd
        write = self.input_usd if self.cache_write_usd is None else self.cache_write_usd
        return read, write

    def cost(self, usage: Usage) -> Decimal:
        read, write = self.cache_usd()
        plain_tokens = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
        total = (
            plain_tokens * self.input_usd
            + usage.cache_read_tokens * read
            + usage.cache_write_tokens * write
            + usage.output_tokens * self.output_usd
        )
        return total / _MILLION


class Pricing:
    """Prices of one provider. `vendor` is its name in the price list; with a `base_url` of its own, the URL decides."""

    def __init__(
        self,
        vendor: str,
        base_url: str | None = None,
        prices: Mapping[str, TokenPrices] | None = None,
        context_window: int | None = None,
    ) -> None:
        self._vendor = vendor
        self._base_url = base_url
        self._prices = dict(prices or {})
        self._context_window = context_window

    def cost(self, usage: Usage, *models: str) -> Decimal | None:
        """Dollars for `usage` by the first of `models` with a known price; None when none has one."""
        for model in models:
            if model in self._prices:
                return self._prices[model].cost(usage)
        for model in models:
            if model and (listed := self._listed_cost(usage, model)) is not None:
                return listed
        return None

    def context_window(self, model: str) -> int:
        return self.known_window(model) or CAUTIOUS_CONTEXT_WINDOW

    def known_window(self, model: str) -> int | None:
        """None for a model that neither the operator nor the list knows."""
        if self._context_window is not None:
            return self._context_window
        listed = self._listed(model)
        return None if listed is None else listed.context_window

    def prices(self, model: str) -> TokenPrices | None:
        """As they are now, for prompts of ordinary length: some vendors ask for more for very long ones. None where
        they are not known, or the vendor does not price by tokens alone."""
        if model in self._prices:
            return self._prices[model]
        listed = self._listed(model)
        now = None if listed is None else listed.get_prices(clock.now())
        if now is None or now.input_mtok is None or now.output_mtok is None:
            return None
        return TokenPrices(
            input_usd=_base(now.input_mtok),
            output_usd=_base(now.output_mtok),
            cache_read_usd=None if now.cache_read_mtok is None else _base(now.cache_read_mtok),
            cache_write_usd=None if now.cache_write_mtok is None else _base(now.cache_write_mtok),
        )

    def _listed(self, model: str) -> ModelInfo | None:
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  # half a second, not wanted at every start

        vendor = None if self._base_url else self._vendor
        try:
            return get_snapshot().find_provider_model(model, None, vendor, self._base_url)[1]
        except LookupError:
            return None

    def _listed_cost(self, usage: Usage, model: str) -> Decimal | None:
        from genai_prices import Usage as ListedUsage  # noqa: PLC0415
        from genai_prices import calc_price  # noqa: PLC0415

        counted = ListedUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        try:
            if self._base_url:
                return calc_price(counted, model, provider_api_url=self._base_url).total_price
            return calc_price(counted, model, provider_id=self._vendor).total_price
        except (LookupError, ValueError):
            return None


def _base(price: Decimal | TieredPrices) -> Decimal:
    return price if isinstance(price, Decimal) else price.base
