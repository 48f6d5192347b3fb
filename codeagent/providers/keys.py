"""API keys that may change at any moment: asked for before each request, checked, and never shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

KeySource = Callable[[], str]
"""Gives the API key of the moment. May raise OSError or ValueError."""


class KeyUnusable(Exception):
    """There is no key to send. `retryable` when it may be back in a moment, as while a mounted secret is replaced."""

    def __init__(self, *, retryable: bool) -> None:
        super().__init__("there is no usable API key")
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Key:
    """A key that can be sent. `credential_id` names the stored one; None is that of the settings."""

    text: str = field(repr=False)
    credential_id: str | None = None


class StoredKeys(Protocol):
    """The keys that the installation keeps for one provider."""

    def active(self) -> Sequence[Key]:
        """Those that may be used now, the newest first. Raises KeyUnusable where that is not known."""
        ...

    async def look(self) -> None:
        """Looks whether others have been stored since. Raises CodeAgentError where it cannot."""
        ...

    def used(self, key: Key) -> None:
        """A call begins with this one."""
        ...


class NothingStored:
    """For a provider whose keys are in the settings alone."""

    def active(self) -> Sequence[Key]:
        return ()

    async def look(self) -> None: ...

    def used(self, key: Key) -> None: ...


def placeholder() -> str:
    """The `KeySource` of servers that want no key."""
    return "none"


def none_given() -> str:
    """The `KeySource` of services that want one, where the settings have none."""
    raise ValueError("the settings have no key")


def read_key(source: KeySource) -> str:
    """The key of the moment. Raises KeyUnusable, which tells nothing of it."""
    try:
        key = source().strip()
    except OSError:
        raise KeyUnusable(retryable=True) from None
    except ValueError:
        raise KeyUnusable(retryable=False) from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise KeyUnusable(retryable=False)
    return key
