"""Secrets at rest: sealed for one place, under keys that can be replaced."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeagent.encryption import NotOpened, SecretBox, new_key_line, parse_keys

OLD, NEW = os.urandom(32), os.urandom(32)
PLACE = "ten_a/webhooks/wh_1/secret"


@given(secret=st.binary(max_size=300), place=st.text(max_size=50))
def test_what_is_sealed_opens_again_and_is_never_the_same_twice(secret: bytes, place: str) -> None:
    box = SecretBox({"k1": OLD})
    sealed = box.seal(secret, place)
    assert box.open(sealed, place) == secret
    assert box.seal(secret, place) != sealed


@given(position=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_a_changed_bit_is_noticed(position: int, bit: int) -> None:
    box = SecretBox({"k1": OLD})
    sealed = bytearray(box.seal(b"secret", PLACE))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(NotOpened):
        box.open(bytes(sealed), PLACE)


def test_a_value_moved_to_another_place_does_not_open() -> None:
    box = SecretBox({"k1": OLD})
    with pytest.raises(NotOpened):
        box.open(box.seal(b"secret", PLACE), "ten_b/webhooks/wh_1/secret")


def test_a_new_key_takes_over_while_the_old_one_still_opens() -> None:
    sealed = SecretBox({"k1": OLD}).seal(b"secret", PLACE)
    both = SecretBox({"k2": NEW, "k1": OLD})
    assert not both.is_current(sealed)
    resealed = both.reseal(sealed, PLACE)
    assert both.is_current(resealed)
    assert SecretBox({"k2": NEW}).open(resealed, PLACE) == b"secret"
    with pytest.raises(NotOpened, match="k1"):
        SecretBox({"k2": NEW}).open(sealed, PLACE)


def test_the_parts_of_two_values_do_not_make_a_third() -> None:
    box = SecretBox({"k1": OLD})
    first, second = box.seal(b"one", PLACE), box.seal(b"two", PLACE)
    cut = len(first) - len(b"one") - 16 - 12
    with pytest.raises(NotOpened):
        box.open(first[:cut] + second[cut:], PLACE)


@pytest.mark.parametrize("sealed", [b"", b"ca1", b"ca1\x05k1", b"x" * 200, b"ca1\x00" + b"x" * 200])
def test_what_was_never_sealed_is_told_as_such(sealed: bytes) -> None:
    with pytest.raises(NotOpened):
        SecretBox({"k1": OLD}).open(sealed, PLACE)


def test_keys_are_read_from_lines_and_a_bad_one_is_named_without_being_told() -> None:
    lines = [new_key_line("2026-11"), "", new_key_line("2026-08")]
    assert list(parse_keys(lines)) == ["2026-11", "2026-08"]
    with pytest.raises(ValueError, match="line 1 is not") as refused:
        parse_keys(["k1:not-base-64!"])
    assert "not-base" not in str(refused.value)
    for keys in ({}, {"k1": b"short"}, {"a name": OLD}):
        with pytest.raises(ValueError, match="key-encryption key"):
            SecretBox(keys)
