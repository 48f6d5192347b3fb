"""Which key a call sends: the newest stored one, one that was refused after all others, that of the settings last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from codeagent.errors import Unavailable
from codeagent.providers.failures import failure
from codeagent.providers.keyring import Keyring
from codeagent.providers.keys import Key, KeySource, KeyUnusable, none_given, placeholder
from codeagent.providers.protocol import ProviderError

NEW, OLD, OWN = Key("new", "cred_new"), Key("old", "cred_old"), Key("own")


class Stored:
    """Stored keys, of which a look finds `later`."""

    def __init__(self, *keys: Key, later: Sequence[Key] | None = None) -> None:
        self.keys, self.later = list(keys), later
        self.looks, self.uses = 0, list[str | None]()
        self.is_known = True

    def active(self) -> Sequence[Key]:
        if not self.is_known:
            raise KeyUnusable(retryable=True)
        return self.keys

    async def look(self) -> None:
        self.looks += 1
        if self.later is None:
            raise Unavailable("the database is away")
        self.keys = list(self.later)

    def used(self, key: Key) -> None:
        self.uses.append(key.credential_id)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def ring(stored: Stored, source: KeySource = lambda: OWN.text, clock: Callable[[], float] | None = None) -> Keyring:
    return Keyring(source, stored, monotonic=clock or Clock())


def chosen(keys: Keyring, model: str = "m") -> Key:
    with keys.lent(model) as key:
        assert keys.take() == key.text
        return key


def error(reason: str, retry_after: float | None = None) -> ProviderError:
    made = failure(reason, "acme", retryable=False)
    made.retry_after_seconds = retry_after
    return made


async def test_the_newest_goes_first_and_that_of_the_settings_last() -> None:
    keys = ring(stored := Stored(NEW, OLD))
    tried = []
    for has_another in (True, True, False):
        tried.append(key := chosen(keys))
        assert await keys.refused(key, "m", error("authentication")) is has_another
    assert tried == [NEW, OLD, OWN]
    assert stored.uses == ["cred_new", "cred_old"]


@pytest.mark.parametrize("reason", ["timeout", "overloaded", "invalid_request", "not_found", "internal"])
async def test_what_does_not_lie_with_the_key_does_not_take_its_place(reason: str) -> None:
    keys = ring(Stored(NEW, OLD))
    assert not await keys.refused(NEW, "m", error(reason))
    assert chosen(keys) == NEW


async def test_an_unknown_key_waits_for_every_model_and_a_limited_one_for_its_own() -> None:
    keys = ring(Stored(NEW, OLD))
    await keys.refused(NEW, "m", error("rate_limited"))
    assert (chosen(keys, "m"), chosen(keys, "other")) == (OLD, NEW)
    await keys.refused(NEW, "m", error("authentication"))
    assert chosen(keys, "other") == OLD


async def test_a_key_comes_back_when_its_limit_ends_and_no_call_goes_round_in_between() -> None:
    keys = ring(Stored(NEW, OLD), clock=(clock := Clock()))
    await keys.refused(NEW, "m", error("rate_limited", retry_after=40))
    await keys.refused(OLD, "m", error("rate_limited", retry_after=0))
    assert chosen(keys) == OWN
    assert not await keys.refused(OWN, "m", error("rate_limited"))
    assert chosen(keys) == OLD, "where all wait, the one whose wait ends first"
    clock.now += 41
    assert chosen(keys) == NEW


async def test_a_key_that_was_replaced_a_moment_ago_is_looked_for_before_the_call_is_given_up() -> None:
    keys = ring(stored := Stored(OLD, later=[NEW]), none_given)
    assert await keys.refused(OLD, "m", error("authentication"))
    assert (chosen(keys), stored.looks) == (NEW, 1)


async def test_a_look_that_fails_leaves_what_is_known() -> None:
    keys = ring(stored := Stored(OLD), none_given)
    assert not await keys.refused(OLD, "m", error("permission"))
    assert (chosen(keys), stored.looks) == (OLD, 1)


async def test_a_file_with_another_key_is_another_key() -> None:
    own = ["first"]
    keys = ring(Stored(), lambda: own[0])
    assert not await keys.refused(chosen(keys), "m", error("authentication"))
    first = chosen(keys)
    own[0] = "second"
    assert await keys.refused(first, "m", error("authentication"))
    assert chosen(keys).text == "second"


def test_a_server_that_wants_no_key_is_sent_none_unless_one_is_stored() -> None:
    assert chosen(ring(Stored(), placeholder)) == Key("none")
    assert chosen(ring(Stored(OLD), placeholder)) == OLD


@pytest.mark.parametrize("source", [placeholder, none_given])
def test_where_it_is_not_known_what_was_revoked_nothing_stored_is_sent(source: KeySource) -> None:
    stored = Stored(NEW)
    stored.is_known = False
    assert chosen(ring(stored)) == OWN
    with pytest.raises(KeyUnusable) as unknown, ring(stored, source).lent("m"):
        pass
    assert unknown.value.retryable


def test_a_key_does_not_show() -> None:
    assert "new" not in repr(Key("new", "cred_1"))
