"""A subject's key: what it seals can be read as long as it exists, and by nobody afterwards.

    b"cs1"   12 bytes nonce   32 bytes commitment   AES-256-GCM ciphertext and tag

Every place has a key of its own, derived from the subject's by HMAC-SHA-256: whoever is to check one sealed value is
shown that place's key (`opening`), and can read nothing else by it. The commitment binds the ciphertext to that one
key, which GCM alone does not.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from codeagent.errors import CodeAgentError, Unreadable

KEY_BYTES = 32
_MAGIC = b"cs1"
_NONCE = 12
_COMMITMENT = 32
_HEAD = len(_MAGIC) + _NONCE + _COMMITMENT
_NAMED = b"cn1"
"""Begins a value that tells its key: one byte with the length of the key's id, the id, then as above."""


KEY_MISSING = "its key is not in the store of subjects' keys"


class Erased(Unreadable):
    """The content is gone, and with it whatever could bring it back."""

    code = "erased"
    status = 410

    def __init__(self, detail: str = "The content was erased.") -> None:
        super().__init__(detail, code="erased")


class NotOpenedBySubject(CodeAgentError):
    """A sealed value was changed, or belongs elsewhere."""

    code = "content_not_opened"


def key_id_of(tenant_id: str, subject: str) -> str:
    """The id of a subject's one key, which everybody can compute: `sk_` and 32 hexadecimal digits."""
    return f"sk_{sha256(tenant_id.encode() + bytes(1) + subject.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """`secret` is None once the key was shredded, or where it is `lost`: its store has never heard of it. `closed`:
    nothing new is sealed, since the subject is being erased."""

    id: str
    secret: bytes | None = field(repr=False)
    closed: bool = False
    lost: bool = False

    @property
    def shredded(self) -> bool:
        """Whether its subject was erased."""
        return self.secret is None and not self.lost

    @property
    def seals(self) -> bool:
        return self.secret is not None and not self.closed

    def opening(self, place: str) -> bytes:
        """The key of one place. Raises `Erased`, and `Unreadable` (`key_missing`) for a key that is lost."""
        if self.lost:
            raise Unreadable(KEY_MISSING, code="key_missing")
        if self.secret is None:
            raise Erased
        return hmac.digest(self.secret, place.encode(), "sha256")

    def seal(self, content: bytes, place: str) -> bytes:
        """`place` says where the value belongs: moved elsewhere it does not open. Raises `Erased`."""
        return sealed_with(self.opening(place), content, os.urandom(_NONCE))

    def open(self, sealed: bytes, place: str) -> bytes:
        """Raises `Erased` and `NotOpenedBySubject`."""
        return opened_with(self.opening(place), sealed)

    def seal_named(self, content: bytes, place: str) -> bytes:
        """Sealed, with the name of the key in front: for places that have no column for it. Raises `Erased`."""
        return named_prefix(self.id) + self.seal(content, place)


def sealed_with(place_key: bytes, content: bytes, nonce: bytes) -> bytes:
    """What `place_key` makes of a content: the same for the same nonce."""
    head = _MAGIC + nonce + _commitment(place_key)
    return head + AESGCM(place_key).encrypt(nonce, content, head)


def opened_with(place_key: bytes, sealed: bytes) -> bytes:
    """Raises `NotOpenedBySubject`."""
    head, body = sealed[:_HEAD], sealed[_HEAD:]
    committed = hmac.compare_digest(head[len(_MAGIC) + _NONCE :], _commitment(place_key))
    if not head.startswith(_MAGIC) or not committed:
        raise NotOpenedBySubject("not a value that this key has sealed for this place")
    try:
        return AESGCM(place_key).decrypt(head[len(_MAGIC) : len(_MAGIC) + _NONCE], body, head)
    except InvalidTag:
        raise NotOpenedBySubject("a sealed value was changed") from None


def _commitment(place_key: bytes) -> bytes:
    return hmac.digest(place_key, b"commitment", "sha256")


def named_prefix(key_id: str) -> bytes:
    """What every value begins with that tells this key."""
    name = key_id.encode()
    return _NAMED + bytes([len(name)]) + name


def named_key(value: bytes) -> tuple[str, bytes] | None:
    """The id of the key that sealed a value, and the sealed part; None for what is not sealed."""
    if not value.startswith(_NAMED) or len(value) < len(_NAMED) + 1:
        return None
    start = len(_NAMED) + 1
    end = start + value[len(_NAMED)]
    return value[start:end].decode(errors="replace"), value[end:]
