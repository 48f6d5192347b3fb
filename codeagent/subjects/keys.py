"""The keys of subjects as a process uses them: kept for seconds, so that what is erased is soon unreadable anywhere."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from datetime import datetime

from codeagent import clock
from codeagent.encryption import NotOpened, SecretBox
from codeagent.errors import Unavailable, Unreadable
from codeagent.subjects.key import KEY_BYTES, Erased, NotOpenedBySubject, SubjectKey, key_id_of, named_key
from codeagent.subjects.store import KeyStore, StoredKey
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

CACHE_SECONDS = 5.0
"""How long a process may go on with a key after it was closed or shredded."""
MOST_CACHED = 10_000


class SubjectKeys:
    """Every method that may have to look raises `Unavailable` (`key_store_unavailable`) where the store is away.

    `box` wraps what is stored. Without a `store` nothing is sealed: `of` gives None.
    """

    def __init__(
        self, store: KeyStore | None = None, box: SecretBox | None = None, *, cache_seconds: float = CACHE_SECONDS
    ) -> None:
        self._store = store
        self._box = box
        self._cache_seconds = cache_seconds
        self._known: OrderedDict[str, tuple[float, SubjectKey]] = OrderedDict()

    @property
    def in_use(self) -> bool:
        return self._store is not None

    async def of(self, tenant_id: str, subject: str) -> SubjectKey | None:
        """The key that seals what belongs to a subject, made when it is first needed. It does not seal any more where
        the subject is being erased, or was. None where nothing is sealed."""
        if self._store is None:
            return None
        key_id = key_id_of(tenant_id, subject)
        known = self._cached(key_id)
        if known is None:
            found = (await self._store.fetch([key_id])).get(key_id)
            stored = found or await self._store.add(self._new(key_id, tenant_id, subject))
            known = self._keep(stored)
        return known

    async def named(self, key_ids: Collection[str]) -> Mapping[str, SubjectKey]:
        """Keys by their ids; one that the store does not know is `lost`, and opens nothing."""
        found: dict[str, SubjectKey] = {}
        missing = []
        for key_id in set(key_ids):
            known = self._cached(key_id)
            if known is None:
                missing.append(key_id)
            else:
                found[key_id] = known
        if missing:
            if self._store is None:
                raise Unavailable("no store of subjects' keys is configured", code="key_store_unavailable")
            stored = await self._store.fetch(missing)
            for key_id in missing:
                there = stored.get(key_id)
                found[key_id] = SubjectKey(key_id, None, closed=True, lost=True) if there is None else self._keep(there)
        return found

    async def open_named(self, values: Mapping[str, bytes]) -> dict[str, bytes | None]:
        """Values that tell their key, by their places, opened; as they are where they were never sealed, and None where
        they were erased. Raises `NotOpenedBySubject` for one that was changed, `Unreadable` where its key is lost."""
        parts = {place: named_key(value) for place, value in values.items()}
        ids = {part[0] for part in parts.values() if part is not None}
        keys = await self.named(ids) if ids else {}
        opened: dict[str, bytes | None] = {}
        for place, part in parts.items():
            if part is None:
                opened[place] = values[place]
                continue
            try:
                opened[place] = keys[part[0]].open(part[1], place)
            except Erased:
                opened[place] = None
        return opened

    async def open_readable(self, values: Mapping[str, bytes]) -> dict[str, bytes | None]:
        """As `open_named`; None also for what cannot be opened for another reason, which is logged: one value must not
        hold up the others."""
        opened: dict[str, bytes | None] = {}
        try:
            return await self.open_named(values)
        except (NotOpenedBySubject, Unreadable):
            for place, value in values.items():
                try:
                    opened |= await self.open_named({place: value})
                except (NotOpenedBySubject, Unreadable) as error:
                    log.error("content.not_opened", place=place, error=error.detail)
                    opened[place] = None
        return opened

    async def close_for_good(self, tenant_id: str, subject: str, at: datetime) -> str | None:
        """Nothing new is sealed for the subject, in any process after `CACHE_SECONDS`. A subject that had no key gets
        one that was never used, so that it gets no other. The key's id; None where nothing is sealed."""
        key = await self.of(tenant_id, subject)
        if key is None or self._store is None:
            return None
        await self._store.close_for_good(key.id, at)
        self._known.pop(key.id, None)
        return key.id

    async def shred(self, key_id: str, at: datetime) -> datetime:
        """When it was shredded, now or before. No process reads by it after `CACHE_SECONDS`."""
        if self._store is None:
            raise Unavailable("no store of subjects' keys is configured", code="key_store_unavailable")
        stored = await self._store.shred(key_id, at)
        self._known.pop(key_id, None)
        return at if stored is None or stored.shredded_at is None else stored.shredded_at

    async def rewrap_all(self) -> int:
        """Wraps every key under the first key-encryption key; how many were not."""
        store, box, last, count = self._store, self._box, "", 0
        while store is not None and box is not None and (ids := await store.ids(last, 500)):
            last = ids[-1]
            for key_id, stored in (await store.fetch(ids)).items():
                if stored.wrapped is not None and not box.is_current(stored.wrapped):
                    fresh = box.reseal(stored.wrapped, _place(key_id))
                    count += await store.rewrap(key_id, stored.wrapped, fresh)
        return count

    async def close(self) -> None:
        self._known.clear()
        if self._store is not None:
            await self._store.close()

    def _new(self, key_id: str, tenant_id: str, subject: str) -> StoredKey:
        assert self._box is not None
        wrapped = self._box.seal(os.urandom(KEY_BYTES), _place(key_id))
        return StoredKey(key_id, tenant_id, subject, wrapped, clock.now())

    def _cached(self, key_id: str) -> SubjectKey | None:
        kept = self._known.get(key_id)
        if kept is None or kept[0] < time.monotonic():
            return None
        return kept[1]

    def _keep(self, stored: StoredKey) -> SubjectKey:
        key = SubjectKey(stored.id, self._unwrapped(stored), closed=stored.closed_at is not None)
        self._known[stored.id] = (time.monotonic() + self._cache_seconds, key)
        self._known.move_to_end(stored.id)
        if len(self._known) > MOST_CACHED:
            self._known.popitem(last=False)
        return key

    def _unwrapped(self, stored: StoredKey) -> bytes | None:
        if stored.wrapped is None:
            return None
        assert self._box is not None
        try:
            return self._box.open(stored.wrapped, _place(stored.id))
        except NotOpened as error:
            # Nothing was erased: the key-encryption key is missing, and comes back.
            raise Unavailable(
                f"a subject's key was not unwrapped: {error.detail}", code="key_store_unavailable"
            ) from error


class NoLookups(SubjectKeys):
    """For those who check what is stored and read none of what is sealed."""

    async def named(self, key_ids: Collection[str]) -> Mapping[str, SubjectKey]:
        return {key_id: SubjectKey(key_id, None, closed=True, lost=True) for key_id in key_ids}


def _place(key_id: str) -> str:
    return f"subject_keys/{key_id}"
