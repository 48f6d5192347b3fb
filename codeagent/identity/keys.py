"""API keys: `cak_`, thirty random base62 characters and six that are their checksum. Kept as digests only."""

from __future__ import annotations

import hmac
import secrets
import string
from collections.abc import Sequence
from hashlib import sha256
from zlib import crc32

from codeagent.identity.principal import Principal

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX = "cak_"
_RANDOM = 30
_CHECK = 6


def _checksum(text: str) -> str:
    number, characters = crc32(text.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, 62)
        characters = _ALPHABET[digit] + characters
    return characters


def new_key() -> str:
    """A fresh key, shown once to its owner."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return f"{_PREFIX}{body}{_checksum(body)}"


def well_formed(key: str) -> bool:
    """Whether the checksum holds: a typing error is refused without looking anything up."""
    body = key[len(_PREFIX) : -_CHECK]
    return (
        key.startswith(_PREFIX)
        and len(key) == len(_PREFIX) + _RANDOM + _CHECK
        and body.isalnum()
        and key.isascii()
        and secrets.compare_digest(_checksum(body), key[-_CHECK:])
    )


def digest_of_key(key: str) -> str:
    """What is stored. Keys are random and long, so a plain hash cannot be reversed by guessing."""
    return sha256(key.encode()).hexdigest()


def hint_of_key(key: str) -> str:
    """The beginning of a key, by which its owner tells it from others."""
    return key[: len(_PREFIX) + 6]


class KeyHasher:
    """Digests of keys as the database has them: HMAC-SHA-256 under a pepper that the database does not know, so that
    whoever can write rows there cannot make keys. Without a pepper plain SHA-256, which production refuses.

    New keys are hashed under the first pepper, and known under any of them: that is how a pepper is replaced.
    """

    def __init__(self, peppers: Sequence[bytes] = ()) -> None:
        self._peppers = tuple(peppers)

    def digest(self, key: str) -> bytes:
        return self.digests(key)[0]

    def digests(self, key: str) -> tuple[bytes, ...]:
        """Under each pepper, in their order."""
        if not self._peppers:
            return (sha256(key.encode()).digest(),)
        return tuple(hmac.digest(pepper, key.encode(), "sha256") for pepper in self._peppers)


class KeyRing:
    """The keys of a file, by digest."""

    def __init__(self, principals: dict[str, Principal]) -> None:
        self._principals = principals
        self._held = frozenset(principals.values())

    def authenticate(self, key: str) -> Principal | None:
        """The principal of a key, or None. Lookup is by digest, so its time tells nothing about the key."""
        return self._principals.get(digest_of_key(key)) if well_formed(key) else None

    def knows(self, principal: Principal) -> bool:
        """Whether one of the keys is still this principal's."""
        return principal in self._held
