"""The leaf hash is computed over canonical JSON, and another implementation of RFC 8785 agrees."""

from __future__ import annotations

from hashlib import sha256

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from codeagent.eventlog.hashing import canonical_json, leaf_hash

names = st.text("abcxyz_-.AZ09", min_size=1, max_size=12)
values = st.one_of(st.none(), st.integers(-(2**53) + 1, 2**53 - 1), st.text(max_size=30))


@given(st.dictionaries(names, values))
def test_our_canonical_json_is_rfc_8785(document: dict[str, str | int | None]) -> None:
    assert canonical_json(document) == rfc8785.dumps(document)


def test_a_leaf_is_prefixed_as_rfc_9162_asks() -> None:
    assert leaf_hash({"b": 1, "a": "x"}) == sha256(b'\x00{"a":"x","b":1}').digest()
