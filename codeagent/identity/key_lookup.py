"""From a key that somebody shows to whom it belongs: one query the first time, none in the steady state."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Database, Row
from codeagent.identity.keys import KeyHasher, well_formed
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import SCOPES_OF, Role, Scope, known_scopes

MOST_KNOWN = 10_000
Digests = tuple[bytes, ...]


class _Remembered:
    """Answers of the last seconds, a bounded number of them: the oldest makes room."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._answers: OrderedDict[bytes, tuple[float, Principal | None]] = OrderedDict()

    def get(self, digest: bytes) -> tuple[float, Principal | None] | None:
        answer = self._answers.get(digest)
        return answer if answer is not None and answer[0] > time.monotonic() else None

    def put(self, digest: bytes, principal: Principal | None) -> None:
        self._answers.pop(digest, None)
        self._answers[digest] = time.monotonic() + self._seconds, principal
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)


class DatabaseKeys:
    """Keys that are rows. What is known is remembered for `known_seconds`, what is not for `unknown_seconds`.

    The two are kept apart, so that guesses cannot push out the keys that are in use. `used` is told of each use. What a
    key's principal may do is as old as what is remembered; whether the key has been revoked or has ended since is for
    whoever asks (`Authenticator`) to tell.
    """

    def __init__(
        self,
        database: Database,
        hasher: KeyHasher,
        used: Callable[[str], None],
        *,
        known_seconds: float = 60.0,
        unknown_seconds: float = 0.5,
        most: int = MOST_KNOWN,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._used = used
        self._known = _Remembered(known_seconds, most)
        self._unknown = _Remembered(unknown_seconds, most)
        self._find: Batcher[Digests, Principal | None] = Batcher(self._find_many, most=100)

    async def authenticate(self, key: str) -> Principal | None:
        """The principal of a key, or None. Raises `Unavailable` where that takes a query and there is no database."""
        if not well_formed(key):
            return None
        digests = self._hasher.digests(key)
        answer = self._known.get(digests[0]) or self._unknown.get(digests[0])
        principal = answer[1] if answer is not None else await self._looked_up(digests)
        if principal is not None:
            self._used(principal.credential_id)
        return principal

    async def _looked_up(self, digests: Digests) -> Principal | None:
        principal = await self._find(digests)
        (self._unknown if principal is None else self._known).put(digests[0], principal)
        return principal

    async def _find_many(self, wanted: Sequence[Digests]) -> Sequence[Principal | None]:
        every = [digest for digests in wanted for digest in digests]
        rows = await self._database.fetch("SELECT * FROM find_api_keys_v1($1)", every)
        found = {row["digest"]: _principal(row) for row in rows}
        return [next((found[digest] for digest in digests if digest in found), None) for digests in wanted]


def _principal(row: Row) -> Principal:
    return Principal(
        tenant_id=row["tenant_id"],
        id=row["principal_id"],
        credential_id=row["id"],
        type="api_key",
        scopes=_scopes(row),
        expires_at=row["expires_at"],
        networks=tuple(row["networks"]),
    )


def _scopes(row: Row) -> frozenset[Scope]:
    """What the key was made for, as far as its principal may still do it."""
    scopes = known_scopes(row["scopes"])
    if row["role"] is not None:
        scopes &= SCOPES_OF[Role(row["role"])]
    if row["account_scope"] is not None:
        scopes &= known_scopes(row["account_scope"].split())
    return scopes
