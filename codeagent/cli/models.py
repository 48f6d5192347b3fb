"""Providers with their retries and breakers around them, one breaker a provider and process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from codeagent.providers.breaker import Breaker, TransitionListener
from codeagent.providers.keys import KeySource, NothingStored, StoredKeys
from codeagent.providers.limits import CallLimiter, CallLimits
from codeagent.providers.probe import Prober
from codeagent.providers.registry import BUILTIN, ProviderRegistry, ProviderSettings
from codeagent.providers.retry import ResilientProvider
from codeagent.rounds import Rounds

LOOK_SECONDS = 5.0


class Models:
    """Resolves `<provider>/<model>` to a guarded provider. Raises what the registry raises. `heard` is told what the
    breakers do; `slots` are those of the worker, of which a provider among several is given half unless its settings
    say how many."""

    def __init__(
        self,
        settings: Sequence[ProviderSettings],
        keys: Mapping[str, KeySource],
        heard: TransitionListener = lambda _: None,
        stored: Callable[[str], StoredKeys] = lambda _: NothingStored(),
        slots: int | None = None,
    ) -> None:
        self._registry = ProviderRegistry(settings, keys, stored)
        known = self._registry.settings()
        self._asking = {each.name: each.asking_digest for each in known}
        self.limits = _limits(known, slots)
        self.breakers = {each.name: Breaker(each.name, listeners=[heard]) for each in known}
        self._probers = [Prober(each, self.breakers[each.name]) for each in known]
        self._looking = Rounds("probes", self._look)
        self._guarded: dict[str, ResilientProvider] = {}

    def resolve(self, model: str) -> tuple[ResilientProvider, str]:
        provider, name = self._registry.resolve(model)
        guarded = self._guarded.get(provider.name)
        if guarded is None:
            limiter = CallLimiter(provider.name, self.limits[provider.name])
            guarded = ResilientProvider(provider, self.breakers[provider.name], limiter=limiter)
            self._guarded[provider.name] = guarded
        return guarded, name

    def asking_digest(self, model: str) -> str:
        """Of what the settings of its provider, which has to be there, add to a request."""
        return self._asking[model.partition("/")[0]]

    async def preload(self) -> None:
        """Imports the vendors' SDKs, beside the event loop: for as long as that takes nothing else could run on it,
        no lease be renewed and no member of a group be heard of."""
        await asyncio.to_thread(self._registry.preload)

    async def start(self) -> None:
        """Looks after providers that nobody calls, from now on."""
        await self._looking.start()

    async def _look(self) -> float:
        await asyncio.gather(*(prober.look() for prober in self._probers))
        return LOOK_SECONDS

    async def close(self) -> None:
        await self._looking.stop()
        await self._registry.close()


def _limits(known: Sequence[ProviderSettings], slots: int | None) -> dict[str, CallLimits]:
    """By provider. One that is slow must not have every slot while there are others to ask; what runs here is nobody's
    to wait for."""
    limits = {each.name: each.limits() for each in known}
    outside = [each.name for each in known if each.kind != BUILTIN]
    if slots is not None and len(outside) > 1:
        for name in outside:
            if limits[name].concurrency is None:
                limits[name] = replace(limits[name], concurrency=max(slots // 2, 1))
    return limits
