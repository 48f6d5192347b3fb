"""What the configured providers offer, as callers may see it: made field by field from what is no secret."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from codeagent.providers.pricing import FREE, TokenPrices
from codeagent.providers.registry import BUILTIN, ProviderKind, ProviderSettings
from codeagent.providers.repair.provider import WINDOW_TOKENS

ANY_MODEL = "*"


@dataclass(frozen=True, slots=True)
class ProviderOffer:
    """`host` is None for a vendor's own service. `key_configured` says that there is a key to take, not that it is
    there or accepted: only workers read it. Whether the vendor answers is known to workers alone, too."""

    name: str
    kind: ProviderKind
    host: str | None
    key_configured: bool
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """`id` is what a run names. Of a provider that takes any model there is one offer, of `*`, about which nothing more
    is known. `context_window` counts tokens; `prices` hold for prompts of ordinary length."""

    id: str
    provider: str
    context_window: int | None = None
    prices: TokenPrices | None = None


class Offers:
    def __init__(self, settings: Iterable[ProviderSettings]) -> None:
        self._settings = tuple(settings)

    def providers(self) -> tuple[ProviderOffer, ...]:
        return tuple(_provider(item) for item in self._settings)

    async def models(self) -> tuple[ModelOffer, ...]:
        """Beside the event loop, since the price list takes half a second to load the first time."""
        return await asyncio.to_thread(lambda: tuple(offer for item in self._settings for offer in _models(item)))


def _provider(settings: ProviderSettings) -> ProviderOffer:
    return ProviderOffer(
        name=settings.name,
        kind=settings.kind,
        host=None if settings.base_url is None else urlsplit(settings.base_url).hostname,
        key_configured=settings.api_key is not None or settings.api_key_file is not None,
        models=_ids(settings),
    )


def _ids(settings: ProviderSettings) -> tuple[str, ...]:
    return tuple(f"{settings.name}/{model}" for model in settings.models or (ANY_MODEL,))


def _models(settings: ProviderSettings) -> Iterator[ModelOffer]:
    pricing = settings.pricing()
    for model, model_id in zip(settings.models or (ANY_MODEL,), _ids(settings), strict=True):
        if settings.name == BUILTIN:
            yield ModelOffer(model_id, settings.name, WINDOW_TOKENS, FREE.tokens)
        elif model == ANY_MODEL:
            yield ModelOffer(model_id, settings.name, settings.context_window)
        else:
            yield ModelOffer(model_id, settings.name, pricing.known_window(model), pricing.prices(model))
