"""What a subject's key seals opens with it alone, in its own place alone, and not at all once it is gone."""

from __future__ import annotations

import pytest

from codeagent.errors import Unreadable
from codeagent.subjects.key import (
    Erased,
    NotOpenedBySubject,
    SubjectKey,
    key_id_of,
    named_key,
    named_prefix,
    opened_with,
    sealed_with,
)

KEY = SubjectKey("sk_a", bytes(range(32)))
OTHER = SubjectKey("sk_b", bytes(range(1, 33)))
PLACE = "events/1"


def test_what_is_sealed_opens_again_and_never_looks_the_same_twice() -> None:
    one, two = KEY.seal(b"a task", PLACE), KEY.seal(b"a task", PLACE)
    assert one != two
    assert KEY.open(one, PLACE) == KEY.open(two, PLACE) == b"a task"
    assert b"a task" not in one


@pytest.mark.parametrize("place", range(len(KEY.seal(b"task", PLACE))))
def test_a_changed_byte_is_seen_wherever_it_is(place: int) -> None:
    sealed = bytearray(KEY.seal(b"task", PLACE))
    sealed[place] ^= 1
    with pytest.raises(NotOpenedBySubject):
        KEY.open(bytes(sealed), PLACE)


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_what_is_cut_short_does_not_open(cut: int) -> None:
    with pytest.raises(NotOpenedBySubject):
        KEY.open(KEY.seal(b"task", PLACE)[:cut], PLACE)


def test_it_opens_in_no_other_place_and_with_no_other_key() -> None:
    sealed = KEY.seal(b"a task", PLACE)
    for key, place in ((KEY, "events/2"), (OTHER, PLACE)):
        with pytest.raises(NotOpenedBySubject):
            key.open(sealed, place)


def test_the_key_of_one_place_checks_that_place_and_opens_no_other() -> None:
    sealed = KEY.seal(b"a task", PLACE)
    opening = KEY.opening(PLACE)
    assert opened_with(opening, sealed) == b"a task"
    assert sealed_with(opening, b"a task", sealed[3:15]) == sealed
    with pytest.raises(NotOpenedBySubject):
        opened_with(opening, KEY.seal(b"another", "events/2"))


def test_a_key_that_is_gone_opens_and_seals_nothing() -> None:
    gone = SubjectKey("sk_a", None, closed=True)
    sealed = KEY.seal(b"a task", PLACE)
    with pytest.raises(Erased):
        gone.open(sealed, PLACE)
    with pytest.raises(Erased):
        gone.seal(b"a task", PLACE)
    assert (gone.shredded, gone.seals) == (True, False)


def test_a_key_that_nobody_knows_is_no_erasure() -> None:
    lost = SubjectKey("sk_a", None, closed=True, lost=True)
    with pytest.raises(Unreadable) as refused:
        lost.open(KEY.seal(b"a task", PLACE), PLACE)
    assert refused.value.code == "key_missing"
    assert not lost.shredded


def test_a_closed_key_opens_and_does_not_seal_any_more() -> None:
    closed = SubjectKey("sk_a", KEY.secret, closed=True)
    assert closed.open(KEY.seal(b"a task", PLACE), PLACE) == b"a task"
    assert not closed.seals


def test_a_value_can_tell_its_key() -> None:
    value = KEY.seal_named(b"a task", PLACE)
    assert value.startswith(named_prefix("sk_a"))
    found = named_key(value)
    assert found is not None
    assert (found[0], KEY.open(found[1], PLACE)) == ("sk_a", b"a task")
    assert [named_key(plain) for plain in (b"", b"{}", b"cn1", b"cn")] == [None] * 4


def test_ids_of_keys_are_of_one_subject_of_one_tenant() -> None:
    ids = {key_id_of(*each) for each in (("a", "b"), ("a", "c"), ("b", "b"), ("ab", ""), ("", "ab"), ("a", "b"))}
    assert len(ids) == 5
    assert all(len(each) == 35 for each in ids)


def test_a_key_does_not_show_itself() -> None:
    assert repr(bytes(range(32))) not in repr(KEY)
    assert "secret" not in repr(KEY)
