"""Secrets at rest: AES-256-GCM under a data key of each value, itself sealed by a key-encryption key (KEK).

What is stored names the KEK that sealed it, so that several can be in use at once: a new one is put in front, values
are resealed at leisure, and the old one is taken away when nothing names it any more.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from codeagent.errors import CodeAgentError

_MAGIC = b"ca1"
_NONCE = 12
_TAG = 16
_KEY = 32
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


class NotOpened(CodeAgentError):
    """A sealed value that no key at hand opens: the KEK is missing, or the value or its place was changed."""

    code = "secret_not_opened"


class SecretBox:
    """Seals with the first key, opens with any. `keys` maps names to 32 bytes, the one in use first."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self.use(keys)

    def use(self, keys: Mapping[str, bytes]) -> None:
        """Goes on with other keys. Raises `ValueError`, and keeps the former ones, when these cannot be used."""
        if not keys:
            raise ValueError("at least one key-encryption key is needed")
        for name, key in keys.items():
            if _NAME.fullmatch(name) is None or len(key) != _KEY:
                raise ValueError(f"key-encryption key {name!r}: a short plain name and 32 bytes are needed")
        self._keys = dict(keys)
        self._current = next(iter(keys))

    def seal(self, secret: bytes, place: str) -> bytes:
        """`place` says where the value belongs, as in `tenant/table/row/column`: moved elsewhere it does not open."""
        data_key, nonce = os.urandom(_KEY), os.urandom(_NONCE)
        name, bound = self._current.encode(), place.encode()
        wrap_nonce = os.urandom(_NONCE)
        wrapped = wrap_nonce + AESGCM(self._keys[self._current]).encrypt(wrap_nonce, data_key, _MAGIC + name + bound)
        body = nonce + AESGCM(data_key).encrypt(nonce, secret, bound)
        return _MAGIC + bytes([len(name)]) + name + wrapped + body

    def open(self, sealed: bytes, place: str) -> bytes:
        """Raises `NotOpened`."""
        name, wrapped, body = _parts(sealed)
        key, bound = self._keys.get(name), place.encode()
        if key is None:
            raise NotOpened(f"key-encryption key {name!r} is not at hand")
        try:
            wrap = _MAGIC + name.encode() + bound
            data_key = AESGCM(key).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], wrap)
            return AESGCM(data_key).decrypt(body[:_NONCE], body[_NONCE:], bound)
        except InvalidTag:
            raise NotOpened("a sealed value was changed, or belongs elsewhere") from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key sealed it; otherwise it is due to be resealed."""
        return key_of(sealed) == self._current

    def reseal(self, sealed: bytes, place: str) -> bytes:
        """The same secret under the first key."""
        return self.seal(self.open(sealed, place), place)


def key_of(sealed: bytes) -> str:
    """The name of the key that sealed it. Raises `NotOpened` for what was never sealed."""
    return _parts(sealed)[0]


def _parts(sealed: bytes) -> tuple[str, bytes, bytes]:
    head = len(_MAGIC) + 1
    length = sealed[head - 1] if len(sealed) >= head and sealed.startswith(_MAGIC) else 0
    wrapped_end = head + length + _NONCE + _KEY + _TAG
    if length == 0 or len(sealed) < wrapped_end + _NONCE + _TAG:
        raise NotOpened("not a sealed value")
    return (
        sealed[head : head + length].decode(errors="replace"),
        sealed[head + length : wrapped_end],
        sealed[wrapped_end:],
    )


def parse_keys(lines: Sequence[str]) -> dict[str, bytes]:
    """Keys from lines of `name:base64`, the one in use first; empty lines do not count. Raises `ValueError`, never
    telling a key."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(":")
        if name in keys:
            raise ValueError(f"line {number} has a name that was there before")
        try:
            keys[name] = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ValueError(f"line {number} is not name:base64") from None
    return keys


def new_key_line(name: str) -> str:
    """A line for the key file with a fresh key."""
    return f"{name}:{base64.b64encode(os.urandom(_KEY)).decode()}"
