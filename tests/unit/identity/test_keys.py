"""Digests of keys: under a pepper they cannot be made by whoever can only write rows."""

from __future__ import annotations

import hmac
from hashlib import sha256

from codeagent.identity.keys import KeyHasher, digest_of_key, hint_of_key, new_key

KEY = new_key()


def test_a_digest_is_an_hmac_under_the_pepper() -> None:
    assert KeyHasher([b"pepper"]).digest(KEY) == hmac.new(b"pepper", KEY.encode(), sha256).digest()


def test_without_a_pepper_it_is_a_plain_hash() -> None:
    assert KeyHasher().digest(KEY).hex() == digest_of_key(KEY)


def test_new_keys_are_hashed_under_the_first_pepper_and_known_under_each() -> None:
    both = KeyHasher([b"new", b"old"])
    assert both.digest(KEY) == KeyHasher([b"new"]).digest(KEY)
    assert both.digests(KEY) == (KeyHasher([b"new"]).digest(KEY), KeyHasher([b"old"]).digest(KEY))


def test_a_hint_tells_keys_apart_and_nothing_else() -> None:
    assert KEY.startswith(hint_of_key(KEY))
    assert len(hint_of_key(KEY)) == 10
