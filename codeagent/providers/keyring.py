"""Which of a provider's keys a call sends: the newest stored one that is not refused just now, that of the settings
last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from codeagent.errors import CodeAgentError
from codeagent.providers.keys import Key, KeySource, KeyUnusable, NothingStored, StoredKeys, placeholder, read_key
from codeagent.providers.protocol import ProviderError

_lent: ContextVar[Key] = ContextVar("_lent")
_ASIDE_SECONDS = {"authentication": 300.0, "permission": 60.0, "rate_limited": 30.0}
"""For how long a key waits behind the others after the vendor has refused a call for its sake."""
_LEAST_ASIDE_SECONDS = 5.0
"""So that a call does not go round and round among keys whose limits end at once."""
_MAY_BE_REPLACED = frozenset({"authentication", "permission"})


class Keyring:
    """The keys of one connection. Calls that run at once may have different ones."""

    def __init__(
        self, source: KeySource, stored: StoredKeys | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._stored = stored or NothingStored()
        self._monotonic = monotonic
        self._aside: dict[tuple[Key, str], float] = {}

    @contextmanager
    def lent(self, model: str) -> Iterator[Key]:
        """The key for one call, which `take` gives as long as the block runs. Raises KeyUnusable."""
        key = self._best(model)
        if key.credential_id is not None:
            self._stored.used(key)
        token = _lent.set(key)
        try:
            yield key
        finally:
            _lent.reset(token)

    def take(self) -> str:
        """The text of the key that is lent to the call under way."""
        return _lent.get().text

    async def refused(self, key: Key, model: str, error: ProviderError) -> bool:
        """Lets the key wait where the failure is its own. Whether there is another that can be asked with now."""
        if (seconds := _ASIDE_SECONDS.get(error.reason)) is None:
            return False
        if error.retry_after_seconds is not None:
            seconds = error.retry_after_seconds
        now = self._monotonic()
        self._aside = {each: until for each, until in self._aside.items() if until > now}
        self._aside[key, _bounds(error.reason, model)] = now + max(seconds, _LEAST_ASIDE_SECONDS)
        if self._has_another(model):
            return True
        if error.reason in _MAY_BE_REPLACED:
            # A key that was replaced a moment ago must not cost a call.
            with contextlib.suppress(CodeAgentError):
                await self._stored.look()
            return self._has_another(model)
        return False

    def _has_another(self, model: str) -> bool:
        try:
            return any(not self._waits_until(key, model) for key in self._keys())
        except KeyUnusable:
            return False

    def _best(self, model: str) -> Key:
        """Where all wait, that whose wait ends first."""
        return min(self._keys(), key=lambda key: self._waits_until(key, model))

    def _waits_until(self, key: Key, model: str) -> float:
        """0 for one that does not wait."""
        until = max(self._aside.get((key, bound), 0.0) for bound in ("", model))
        return until if until > self._monotonic() else 0.0

    def _keys(self) -> Sequence[Key]:
        """In the order in which they are tried; at least one. Raises KeyUnusable."""
        unusable: KeyUnusable | None = None
        keys: list[Key] = []
        try:
            keys += self._stored.active()
        except KeyUnusable as error:
            unusable = error
        if self._source is placeholder and (keys or unusable):
            if not keys and unusable:
                raise unusable
            return keys
        try:
            keys.append(Key(read_key(self._source)))
        except KeyUnusable as error:
            unusable = unusable or error
        if not keys and unusable:
            raise unusable
        return keys


def _bounds(reason: str, model: str) -> str:
    """What a refusal is about: an unknown key is unknown for every model, a limit may be that of one."""
    return "" if reason == "authentication" else model
