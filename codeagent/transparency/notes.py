"""Signed notes and their Ed25519 keys (c2sp.org/signed-note): a text, and lines that say who has signed it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from codeagent.errors import Rejected

_ED25519 = b"\x01"
_KEY_BYTES = 32
_ID_BYTES = 4
_PRIVATE = "PRIVATE+KEY+"
_LINE = re.compile(r"— (\S+) (\S+)")
_NAME = re.compile(r"[^\s+]{1,200}")
MOST_NOTE_BYTES = 100_000


class NoteRejected(Rejected):
    """A note that is none, or that none of the known keys has signed. `code` tells which."""

    code = "note_malformed"


UNKNOWN_KEY, WRONG_SIGNATURE = "note_unknown_key", "note_wrong_signature"


def decoded(text: str) -> bytes:
    """Standard base64, written in the one right way. Raises `ValueError`."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if encoded(data) != text:
        raise ValueError("not base64 as it is written")
    return data


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class VerifierKey:
    """The public half of a key, known by its name and an id of four bytes."""

    name: str
    public: bytes

    @cached_property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{encoded(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Reads `name+id+key`. Raises `ValueError`."""
        name, claimed, data = _parts(text)
        key = cls(name, data)
        if key.id.hex() != claimed:
            raise ValueError("the key's id is not its own")
        return key

    def verifies(self, signature: bytes, text: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """The private half. Its text form is a secret; nothing here prints it but `secret`."""

    def __init__(self, name: str, seed: bytes) -> None:
        if _NAME.fullmatch(name) is None or len(seed) != _KEY_BYTES:
            raise ValueError("a key has a name without spaces and pluses, and 32 bytes")
        self._key, self._seed = Ed25519PrivateKey.from_private_bytes(seed), seed
        self.verifier = VerifierKey(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def new(cls, name: str) -> SigningKey:
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Reads `PRIVATE+KEY+name+id+key`. Raises `ValueError`, never telling the key."""
        if not text.startswith(_PRIVATE):
            raise ValueError("not a private key")
        name, claimed, seed = _parts(text.removeprefix(_PRIVATE))
        key = cls(name, seed)
        if key.verifier.id.hex() != claimed:
            raise ValueError("the key's id is not its own")
        return key

    def secret(self) -> str:
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier.id.hex()}+{encoded(_ED25519 + self._seed)}"

    def line(self, text: str) -> str:
        signature = self._key.sign(text.encode())
        return f"— {self.verifier.name} {encoded(self.verifier.id + signature)}\n"


def _parts(text: str) -> tuple[str, str, bytes]:
    name, _, rest = text.partition("+")
    claimed, _, key = rest.partition("+")
    data = decoded(key)
    if _NAME.fullmatch(name) is None or len(data) != 1 + _KEY_BYTES or data[:1] != _ED25519:
        raise ValueError("not name+id+key of an Ed25519 key")
    return name, claimed, data[1:]


def sign_note(text: str, keys: Sequence[SigningKey]) -> str:
    """`text` ends with a line's end, as every line of it does."""
    return f"{text}\n{''.join(key.line(text) for key in keys)}"


def open_note(note: str, keys: Sequence[VerifierKey]) -> str:
    """The text, once one of `keys` is seen to have signed it. Raises `NoteRejected`: where a known key's signature does
    not hold as well, whoever else has signed."""
    text, lines = _split(note)
    known = {(key.name, key.id): key for key in keys}
    signed, strangers = False, []
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise NoteRejected("a line that should be a signature is none")
        try:
            data = decoded(found[2])
        except ValueError:
            raise NoteRejected("a signature is not base64") from None
        key = known.get((found[1], data[:_ID_BYTES]))
        if key is None:
            strangers.append(f"{found[1]}+{data[:_ID_BYTES].hex()}")
        elif not key.verifies(data[_ID_BYTES:], text.encode()):
            raise NoteRejected(f"the signature of {key.name}+{key.id.hex()} does not hold", code=WRONG_SIGNATURE)
        else:
            signed = True
    if not signed:
        raise NoteRejected(f"signed by {', '.join(strangers)} and by no key that is known here", code=UNKNOWN_KEY)
    return text


def _split(note: str) -> tuple[str, list[str]]:
    if len(note.encode()) > MOST_NOTE_BYTES or any(letter < " " and letter != "\n" for letter in note):
        raise NoteRejected("not a note: too long, or with control characters")
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise NoteRejected("not a note: it has no lines of signatures after an empty one")
    return f"{text}\n", signatures.removesuffix("\n").split("\n")
