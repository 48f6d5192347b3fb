"""Passwords: which are taken, and what a check costs at most."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from codeagent.errors import InvalidInput, Unavailable
from codeagent.identity.passwords import SHORTEST, Passwords, check_password, temporary_password

EMAIL = "ada.lovelace@example.org"


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    made = Passwords(time_cost=1, memory_kib=8, parallelism=1, at_once=2, most_waiting=3)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "password",
    [
        "elevenchars",
        "x" * 257,
        "password1234",
        "P@ssw0rd!2024",
        "Summer2026!!",
        "aaaaaaaaaaaa",
        "abcabcabcabc",
        "123456789012",
        "qwertyuiop12",
        "1q2w3e4r5t6y",
        "poiuytrewq99",
        "ada.lovelace1",
        "Ada-Lovelace-2026",
        "correct horse battery",
        "ｐａｓｓｗｏｒｄ１２３４",
        "αβγδεζηθικλμνξοπρστυφχψω" * 2,
        "jessica1jessica1",
    ],
)
def test_what_is_guessed_first_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_password(password, EMAIL, pointer="/new_password")
    assert (refused.value.code, refused.value.pointer) == ("weak_password", "/new_password")
    assert password not in refused.value.detail


@pytest.mark.parametrize(
    "password",
    [
        "kX9#mQ2vL8pR",
        "grau tisch lampe ofen",
        "8402750193847261",
        "Tr0ub4dor&3xyz",
        "ñandú über äther",
        "ξεσκεπάζω την ψυχοφθόρα" * 10,
    ],
)
def test_what_takes_long_to_guess_is_taken_whatever_it_is_made_of(password: str) -> None:
    check_password(password, EMAIL, pointer="/new_password")


def test_none_of_the_most_used_passwords_is_taken() -> None:
    """All that are long enough, and the 3,000 most used made long enough as people do: said again until they are."""
    most_used: list[str] = FREQUENCY_LISTS["passwords"]
    long_enough = [password for password in most_used if len(password) >= SHORTEST]
    repeated = [password * -(-SHORTEST // len(password)) for password in most_used[:3_000]]
    assert len(long_enough) > 200
    for password in [*long_enough, *repeated]:
        with pytest.raises(InvalidInput):
            check_password(password, EMAIL, pointer="")


def test_a_temporary_password_would_be_taken_too() -> None:
    given = {temporary_password() for _ in range(20)}
    assert len(given) == 20
    for password in given:
        check_password(password, EMAIL, pointer="")


async def test_a_password_matches_its_own_hash_and_no_other(passwords: Passwords) -> None:
    hashed = await passwords.hash("cafe\u0301 au lait")
    assert hashed.startswith("$argon2id$")
    assert hashed != await passwords.hash("cafe\u0301 au lait")
    assert await passwords.matches(hashed, "caf\u00e9 au lait")
    assert not await passwords.matches(hashed, "cafe au lait")
    assert not await passwords.matches("not a hash", "x")
    assert not await passwords.matches(None, "x")


async def test_a_hash_of_other_parameters_is_outdated(passwords: Passwords) -> None:
    stronger = Passwords(time_cost=2, memory_kib=16, parallelism=1)
    assert passwords.outdated(await stronger.hash("x"))
    assert not passwords.outdated(await passwords.hash("x"))
    await stronger.close()


class Hasher:
    """Stands in for argon2, to be watched and held up."""

    def __init__(self, work: Callable[[], None] = lambda: None) -> None:
        self.hashed: list[bytes] = []
        self._work = work

    def hash(self, secret: bytes) -> str:
        self.hashed.append(secret)
        self._work()
        return "hashed"


async def test_an_unknown_account_costs_a_whole_hash(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = Hasher()
    monkeypatch.setattr(passwords, "_hasher", hasher)
    assert not await passwords.matches(None, "guess")
    assert hasher.hashed == [b"guess"]


async def test_few_are_checked_at_once_and_too_many_are_sent_away(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, running, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def slow() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(10)
        with lock:
            running -= 1

    monkeypatch.setattr(passwords, "_hasher", Hasher(slow))
    waiting = [asyncio.create_task(passwords.hash("x")) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await passwords.hash("x")
    # Whoever goes away leaves the thread at work: its place is not given to another yet.
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    with pytest.raises(Unavailable):
        await passwords.hash("x")
    release.set()
    assert await asyncio.gather(*waiting[1:]) == ["hashed"] * 4
    assert most <= 2
    assert await passwords.hash("x") == "hashed"
