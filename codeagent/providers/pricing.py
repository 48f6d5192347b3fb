"""What a model call costs and how much a model can take, from the operator's own figures or the bundled price list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from codeagent import clock
from codeagent.messages.conversation import Usage
from codeagent.messages.prices import PriceTold
from codeagent.providers.price_list import listed_model, listed_price
from codeagent.providers.protocol import Price

CAUTIOUS_CONTEXT_WINDOW = 16_384
"""For a model nobody knows: small enough for most servers a team runs itself."""

_MILLION = Decimal(1_000_000)


class TokenPrices(BaseModel):
    """US dollars for a million tokens, from a day of UTC on, or always. What is read from or written to a cache costs
    as input unless said."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    starts_on: date | None = Field(default=None, alias="from")
    input_usd: Decimal = Field(ge=0)
    output_usd: Decimal = Field(ge=0)
    cache_read_usd: Decimal | None = Field(default=None, ge=0)
    cache_write_usd: Decimal | None = Field(default=None, ge=0)

    @field_validator("input_usd", "output_usd", "cache_read_usd", "cache_write_usd")
    @classmethod
    def _one_spelling(cls, value: Decimal | None) -> Decimal | None:
        """3 and 3.00 are one price, and have one digest."""
        return None if value is None else value.normalize()

    @property
    def told(self) -> PriceTold:
        day = "undated" if self.starts_on is None else self.starts_on.isoformat()
        digest = sha256(self.model_dump_json(exclude={"starts_on"}).encode()).hexdigest()[:16]
        return PriceTold(source="operator", version=day, digest=digest)

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


class _Free:
    """The price of models that run here."""

    told = PriceTold(source="free", version="builtin", digest="")
    tokens = TokenPrices(input_usd=Decimal(0), output_usd=Decimal(0))

    def cost(self, _usage: Usage) -> Decimal:
        return Decimal(0)


FREE = _Free()


def _in_order(value: object) -> object:
    """One price, or several from different days on."""
    return value if isinstance(value, list | tuple) else (value,)


def check_days(prices: Sequence[TokenPrices]) -> tuple[TokenPrices, ...]:
    """By day, one without a day first. Raises `ValueError` where two begin on one day, or there is none."""
    if not prices:
        raise ValueError("there is no price")
    days = [price.starts_on for price in prices]
    if len(set(days)) != len(days):
        raise ValueError("two prices begin on the same day")
    return tuple(sorted(prices, key=lambda price: price.starts_on or date.min))


DatedPrices = Annotated[tuple[TokenPrices, ...], BeforeValidator(_in_order)]
"""Prices of one model, each from its day on."""


class Pricing:
    """Prices of one provider. `vendor` is its name in the price list; with a `base_url` of its own, the URL decides."""

    def __init__(
        self,
        vendor: str,
        base_url: str | None = None,
        prices: Mapping[str, Sequence[TokenPrices]] | None = None,
        context_window: int | None = None,
    ) -> None:
        self._vendor = vendor
        self._base_url = base_url
        self._prices = {model: check_days(dated) for model, dated in (prices or {}).items()}
        self._context_window = context_window

    def price(self, model: str, at: datetime | None = None) -> Price | None:
        """What a call of the model costs that begins at a moment: now, unless said. It is the model that is asked for,
        whatever name the one that answers goes by. None where nobody knows."""
        return self._own(model, at) or listed_price(self._vendor, self._base_url, model, at or clock.now())

    def _own(self, model: str, at: datetime | None) -> TokenPrices | None:
        day = (at or clock.now()).astimezone(UTC).date()
        begun = [price for price in self._prices.get(model, ()) if price.starts_on is None or price.starts_on <= day]
        return begun[-1] if begun else None

    def context_window(self, model: str) -> int:
        return self.known_window(model) or CAUTIOUS_CONTEXT_WINDOW

    def known_window(self, model: str) -> int | None:
        """None for a model that neither the operator nor the list knows."""
        if self._context_window is not None:
            return self._context_window
        listed = listed_model(self._vendor, self._base_url, model)
        return None if listed is None else listed.context_window

    def prices(self, model: str, at: datetime | None = None) -> TokenPrices | None:
        """As `price`, for prompts of ordinary length: some vendors ask for more for very long ones."""
        if (own := self._own(model, at)) is not None:
            return own
        listed = listed_price(self._vendor, self._base_url, model, at or clock.now())
        if listed is None:
            return None
        told, written, read, stored = listed.base()
        return TokenPrices(input_usd=told, output_usd=written, cache_read_usd=read, cache_write_usd=stored)
