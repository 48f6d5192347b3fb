"""Providers with their retries and breakers around them, one breaker a provider and process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from codeagent.providers.breaker import Breaker
from codeagent.providers.keys import KeySource
from codeagent.providers.registry import ProviderRegistry, ProviderSettings
from codeagent.providers.retry import ResilientProvider


class Models:
    """Resolves `<provider>/<model>` to a guarded provider. Raises what the registry raises."""

    def __init__(self, settings: Sequence[ProviderSettings], keys: Mapping[str, KeySource]) -> None:
        self._registry = ProviderRegistry(settings, keys)
        self._guarded: dict[str, ResilientProvider] = {}

    def resolve(self, model: str) -> tuple[ResilientProvider, str]:
        provider, name = self._registry.resolve(model)
        guarded = self._guarded.get(provider.name)
        if guarded is None:
            guarded = self._guarded[provider.name] = ResilientProvider(provider, Breaker(provider.name))
        return guarded, name

    async def preload(self) -> None:
        """Imports the vendors' SDKs, beside the event loop: for as long as that takes nothing else could run on it,
        no lease be renewed and no member of a group be heard of."""
        await asyncio.to_thread(self._registry.preload)

    async def close(self) -> None:
        await self._registry.close()
