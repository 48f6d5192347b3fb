"""Stored keys as a provider worker uses them: opened in memory, and looked for anew every other second.

A notice of a revocation makes a worker look at once. Should it be lost each looks by itself, and one that cannot look
does not know what was revoked. It then uses no stored key, so that a revoked one is sent with no call that begins more
than `STALE_SECONDS` later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from codeagent.encryption import NotOpened, SecretBox
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.notices import listen
from codeagent.provider_registry import tables
from codeagent.provider_registry.credentials import place_of
from codeagent.providers.keys import Key, KeyUnusable
from codeagent.rounds import Rounds
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 2.0
STALE_SECONDS = 5.0
USE_NOTED_EVERY = timedelta(minutes=1)


class StoredCredentials:
    """Those of all providers. `database` sees what is sealed; without a `box` nothing can be opened."""

    def __init__(
        self,
        database: Database,
        box: SecretBox | None,
        *,
        look_seconds: float = LOOK_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._box = box
        self._look_seconds = look_seconds
        self._monotonic = monotonic
        self._keys: dict[str, list[Key]] = {}
        self._opened: dict[str, Key] = {}
        self._unreadable: frozenset[str] = frozenset()
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._used: set[str] = set()
        self._noted: dict[str, float] = {}
        self._told = asyncio.Event()
        self._rounds = Rounds("credentials", self._round), Rounds("credential_notices", self._when_told)
        self._listening: asyncio.Task[None] | None = None

    def of(self, provider: str) -> ProviderKeys:
        return ProviderKeys(self, provider)

    def active(self, provider: str) -> Sequence[Key]:
        """Newest first. Raises KeyUnusable where there were some and it is not known whether they still are."""
        keys = self._keys.get(provider, [])
        if keys and self._monotonic() - self._looked_at > STALE_SECONDS:
            raise KeyUnusable(retryable=True)
        return keys

    def used(self, credential_id: str) -> None:
        self._used.add(credential_id)

    async def look(self) -> None:
        """Those who ask while somebody looks have one more look among them. Raises `Unavailable`."""
        asked_at = self._monotonic()
        async with self._looking:
            if self._looked_at > asked_at:
                return
            began = self._monotonic()
            self._take(await tables.sealed_credentials(self._database))
            self._looked_at = began

    def _take(self, rows: Sequence[Row]) -> None:
        keys: dict[str, list[Key]] = {}
        unreadable: set[str] = set()
        for row in rows:
            try:
                key = self._opened.get(row["id"]) or self._open(row)
            except NotOpened as error:
                unreadable.add(row["id"])
                if row["id"] not in self._unreadable:
                    log.error("credential.not_opened", credential_id=row["id"], error=error.detail)
                continue
            keys.setdefault(row["provider"], []).append(key)
        self._keys, self._unreadable = keys, frozenset(unreadable)
        # What is revoked is not kept in memory either.
        self._opened = {str(key.credential_id): key for each in keys.values() for key in each}

    def _open(self, row: Row) -> Key:
        if self._box is None:
            raise NotOpened("there is no key-encryption key")
        place = place_of(row["provider"], row["id"])
        return Key(self._box.open(row["secret_sealed"], place).decode(), row["id"])

    async def start(self) -> None:
        """Has looked when it returns. Raises `Unavailable`."""
        await self.look()
        notices = listen(self._database, tables.CREDENTIAL_REVOKED, lambda _: self._told.set())
        self._listening = asyncio.create_task(notices)
        for rounds in self._rounds:
            await rounds.start()

    async def stop(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        for rounds in self._rounds:
            await rounds.stop()

    async def _when_told(self) -> float:
        await self._told.wait()
        self._told.clear()
        await self.look()
        return 0.0

    async def _round(self) -> float:
        await self.look()
        await self._note_use()
        return self._look_seconds

    async def _note_use(self) -> None:
        now, every = self._monotonic(), USE_NOTED_EVERY.total_seconds()
        self._noted = {each: at for each, at in self._noted.items() if now - at < every}
        due = sorted(self._used - self._noted.keys())
        if due:
            await tables.note_credentials_used(self._database, due, USE_NOTED_EVERY)
            self._used.difference_update(due)
            self._noted |= dict.fromkeys(due, now)


class ProviderKeys:
    """`StoredKeys` of one provider."""

    def __init__(self, credentials: StoredCredentials, provider: str) -> None:
        self._credentials = credentials
        self._provider = provider

    def active(self) -> Sequence[Key]:
        return self._credentials.active(self._provider)

    async def look(self) -> None:
        await self._credentials.look()

    def used(self, key: Key) -> None:
        self._credentials.used(str(key.credential_id))
