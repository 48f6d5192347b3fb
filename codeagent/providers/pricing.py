"""What a model call costs and how much a model can take, from the operator's own figures or the bundled price list."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

from codeagent.messages.conversation import Usage

CAUTIOUS_CONTEXT_WINDOW = 16_384
"""For a model nobody knows: small enough for most servers a team runs itself."""

_MILLION = Decimal(1_000_000)


class TokenPrices(BaseModel):
    """US dollars for a million tokens. What is read from or written to a cache costs as input unless said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_usd: Decimal = Field(ge=0)
    output_usd: Decimal = Field(ge=0)
    cache_read_usd: Decimal | None = Field(default=None, ge=0)
    cache_write_usd: Decimal | None = Field(default=None, ge=0)

    def cost(self, usage: Usage) -> Decimal:
        read = self.input_usd if self.cache_read_usd is None else self.cache_read_usd
        write = self.input_usd if self.cache_write_usd is None else self.cache_write_usd
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
        if self._context_window is not None:
            return self._context_window
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  # half a second, wanted by workers only

        vendor = None if self._base_url else self._vendor
        try:
            _, known = get_snapshot().find_provider_model(model, None, vendor, self._base_url)
        except LookupError:
            return CAUTIOUS_CONTEXT_WINDOW
        return known.context_window or CAUTIOUS_CONTEXT_WINDOW

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
