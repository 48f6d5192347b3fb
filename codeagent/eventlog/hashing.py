"""The leaf hash stored with every event: what a later seal commits to, and what a check recomputes."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import orjson


def digest_of(data: bytes) -> bytes:
    return sha256(data).digest()


def canonical_json(document: Mapping[str, str | int | None]) -> bytes:
    """RFC 8785 for flat objects with ASCII names and string, integer or null values, which is all that is hashed."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def leaf_hash(leaf: Mapping[str, str | int | None]) -> bytes:
    """SHA-256 of 0x00 and the leaf's canonical JSON, as in RFC 9162."""
    return sha256(b"\x00" + canonical_json(leaf)).digest()
