"""API keys that may change at any moment: asked for before each request, checked, and never shown."""

from __future__ import annotations

from collections.abc import Callable

KeySource = Callable[[], str]
"""Gives the API key of the moment. May raise OSError or ValueError."""


class KeyUnusable(Exception):
    """There is no key to send. `retryable` when it may be back in a moment, as while a mounted secret is replaced."""

    def __init__(self, *, retryable: bool) -> None:
        super().__init__("there is no usable API key")
        self.retryable = retryable


class ApiKey:
    """The key a connection sends, and whether it is still the same one."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._taken = ""

    def take(self) -> str:
        """The key to send now. Raises KeyUnusable, which tells nothing of it."""
        self._taken = self._read()
        return self._taken

    def has_changed(self) -> bool:
        """Whether the source now gives another key than the last one taken."""
        try:
            return self._read() != self._taken
        except KeyUnusable:
            return False

    def _read(self) -> str:
        try:
            key = self._source().strip()
        except OSError:
            raise KeyUnusable(retryable=True) from None
        except ValueError:
            raise KeyUnusable(retryable=False) from None
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise KeyUnusable(retryable=False)
        return key
