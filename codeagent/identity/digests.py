"""Keyed digests: what is looked up without being kept, such as e-mail addresses, client addresses and tokens.

The key is random, made once for the whole installation and sealed in the database, so that a stolen table cannot be
searched for known addresses, and so that key-encryption keys may come and go without any digest changing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from codeagent.encryption import SecretBox
from codeagent.eventlog.database import Database

_SECRET = "identity-digests"  # noqa: S105  its name
_PLACE = f"instance_secrets/{_SECRET}"
_BYTES = 32


def normal_email(email: str) -> str:
    """The one spelling by which an address is found."""
    return unicodedata.normalize("NFKC", email).strip().casefold()


def random_token(prefix: str) -> str:
    """`crt_` and 43 characters: 256 random bits nobody guesses."""
    return _token(prefix, os.urandom(_BYTES))


def _token(prefix: str, data: bytes) -> str:
    return f"{prefix}_{base64.urlsafe_b64encode(data).rstrip(b'=').decode()}"


@dataclass(frozen=True, slots=True)
class Digests:
    """Each method has a label of its own, so that a digest of one kind is never one of another."""

    key: bytes

    def _of(self, label: str, *parts: bytes) -> bytes:
        message = b"".join(len(part).to_bytes(4) + part for part in (label.encode(), *parts))
        return hmac.digest(self.key, message, hashlib.sha256)

    def email(self, email: str) -> bytes:
        return self._of("email", normal_email(email).encode())

    def network(self, address: str) -> bytes:
        """Of the network that a client's address is in (/24, or /48 of IPv6): coarse enough to stay the same for a
        while, and too coarse to tell a person."""
        return self._of("network", _network(address, 24, 48))

    def throttle(self, kind: str, *parts: bytes) -> bytes:
        return self._of(f"throttle-{kind}", *parts)

    def address(self, address: str) -> bytes:
        """Of who may be made to wait: one IPv4 address, or what IPv6 gives to one customer at least."""
        return self._of("address", _network(address, 32, 64))

    def token(self, token: str) -> bytes:
        """Of a refresh token, an authorization code or a secret."""
        return self._of("token", token.encode())

    def successor(self, token: str, salt: bytes) -> str:
        """The refresh token that follows one: the same for whoever asks again, and unknown to whoever has seen only
        the tables, only the key, or only the token."""
        prefix = token.partition("_")[0]
        return _token(prefix, self._of("successor", token.encode(), salt))


def _network(address: str, bits: int, bits_of_six: int) -> bytes:
    try:
        known = ip_address(address)
    except ValueError:
        return address.encode()  # a Unix socket's peer has none
    if isinstance(known, IPv6Address):
        known = known.ipv4_mapped or known
    wide = bits_of_six if isinstance(known, IPv6Address) else bits
    return str(ip_network((known, wide), strict=False)).encode()


class DigestSource:
    """Reads the key when it is first needed. Raises `Unavailable` while the database is away."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self._database = database
        self._box = box
        self._reading = asyncio.Lock()
        self._digests: Digests | None = None

    async def get(self) -> Digests:
        if self._digests is None:
            async with self._reading:
                if self._digests is None:
                    self._digests = Digests(await self._key())
        return self._digests

    async def _key(self) -> bytes:
        offered = self._box.seal(os.urandom(_BYTES), _PLACE)
        [row] = await self._database.write("SELECT instance_secret_v1($1, $2)", _SECRET, offered)
        return self._box.open(row[0], _PLACE)
