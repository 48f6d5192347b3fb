"""Passwords: hashed with argon2id beside the event loop, and refused where they are guessed first."""

from __future__ import annotations

import asyncio
import re
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from codeagent.errors import InvalidInput, Unavailable

Result = TypeVar("Result")

SHORTEST = 12
LONGEST = 256
_LEET = str.maketrans("013457@$!", "oleastasi")
_WORDS = re.findall(
    r"\w+",
    """
    password passwort passphrase welcome willkommen letmein opensesame changeme iloveyou administrator admin root
    login guest test secret master monkey dragon sunshine princess football baseball superman batman starwars
    correct horse battery staple codeagent company summer winter spring autumn january february monday friday
    default user demo example trustno access hello whatever shadow
    """,
)
_ROWS = (
    *("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm"),
    *("1q2w3e4r5t6y7u8i9o0p", "1q2w3e4r5t6z7u8i9o0p", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik"),
)
_RUN = 4
_RUNS = frozenset(
    line[start : start + _RUN] for row in _ROWS for line in (row, row[::-1]) for start in range(len(row) - _RUN + 1)
)
_UNGUESSED = 5
"""Characters that must be left once words, rows of keys and repeats are taken away."""
_LOOKED_UP = 72
"""Characters that are judged by lists, which takes longer than in proportion."""
_HARD = 3
"""Of 0 to 4: more than a hundred million guesses by somebody who has the lists."""


def check_password(password: str, email: str, *, pointer: str) -> None:
    """Raises `InvalidInput` (`weak_password`) for one that would be among the first guesses."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidInput(f"A password has {SHORTEST} to {LONGEST} characters.", pointer=pointer, code="weak_password")
    if len(_rest(password, email)) < _UNGUESSED or _listed(password):
        raise InvalidInput(
            "The password consists of what is guessed first: common words, rows of keys, repeats, or the e-mail "
            "address.",
            pointer=pointer,
            code="weak_password",
        )


def _rest(password: str, email: str) -> str:
    """What is left of a password when everything is taken away that lists of common ones are made of."""
    own = [part for part in re.split(r"[^a-z0-9]+", email.casefold()) if len(part) >= 3]
    words = sorted((*_WORDS, *own), key=len, reverse=True)
    plain = _without_runs(unicodedata.normalize("NFKC", password).casefold())
    plain = re.sub(r"(.{1,4}?)\1{2,}", "", plain)
    plain = re.sub(r"(?<=[^\d\W])[\d\W_]{1,6}$", "", plain)  # what people add to a word when they are made to
    rests = []
    for text in (plain, plain.translate(_LEET)):
        for word in words:
            text = text.replace(word, "")  # noqa: PLW2901
        rests.append(re.sub(r"[\W_]", "", text))
    return min(rests, key=len)


def _listed(password: str) -> bool:
    """Whether it is made of what stands in lists of the most used passwords, words and names."""
    from zxcvbn import zxcvbn  # noqa: PLC0415  its lists take a tenth of a second to load

    return int(zxcvbn(unicodedata.normalize("NFKC", password)[:_LOOKED_UP])["score"]) < _HARD


def _without_runs(text: str) -> str:
    gone = {start + n for start in range(len(text)) if text[start : start + _RUN] in _RUNS for n in range(_RUN)}
    return "".join(character for place, character in enumerate(text) if place not in gone)


def temporary_password() -> str:
    """A password to be handed to somebody, who then chooses another."""
    return secrets.token_urlsafe(18)


class Passwords:
    """Hashes and checks, a few at a time: each takes a core and tens of megabytes for a tenth of a second.

    A pool of its own is the bound, since a thread goes on working when the request that waits for it is gone.
    Defaults are RFC 9106's second recommendation. `memory_kib` is that of one hash.
    """

    def __init__(
        self,
        *,
        time_cost: int = 3,
        memory_kib: int = 65_536,
        parallelism: int = 4,
        at_once: int = 2,
        most_waiting: int = 32,
    ) -> None:
        self._hasher = PasswordHasher(time_cost, memory_kib, parallelism)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="passwords")
        self._most = at_once + most_waiting
        self._pending = 0

    async def hash(self, password: str) -> str:
        """Raises `Unavailable` when too many are waiting."""
        return await self._in_pool(lambda: self._hasher.hash(_normal(password)))

    async def matches(self, hashed: str | None, password: str) -> bool:
        """Takes as long where there is no hash, so that time does not tell which accounts exist."""
        return await self._in_pool(lambda: self._check(hashed, password))

    def _check(self, hashed: str | None, password: str) -> bool:
        if hashed is None:
            self._hasher.hash(_normal(password))
            return False
        try:
            return self._hasher.verify(hashed, _normal(password))
        except (VerificationError, InvalidHashError):
            return False

    def outdated(self, hashed: str) -> bool:
        """Whether it was made with other parameters than new ones are."""
        return self._hasher.check_needs_rehash(hashed)

    async def _in_pool(self, work: Callable[[], Result]) -> Result:
        if self._pending >= self._most:
            raise Unavailable("Too many logins at once.", code="temporary_reduced_capacity")
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, _: object) -> None:
        self._pending -= 1

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _normal(password: str) -> bytes:
    """The same characters hash the same, however a keyboard composes them."""
    return unicodedata.normalize("NFKC", password).encode()
