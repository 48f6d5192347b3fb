"""Subjects' keys in memory, for whatever is not about where they are kept. It passes the contract of key stores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from codeagent.encryption import SecretBox
from codeagent.subjects.keys import SubjectKeys
from codeagent.subjects.store import StoredKey


class KeysInMemory:
    def __init__(self) -> None:
        self.kept: dict[str, StoredKey] = {}

    async def fetch(self, key_ids: Collection[str]) -> Mapping[str, StoredKey]:
        return {key_id: self.kept[key_id] for key_id in key_ids if key_id in self.kept}

    async def add(self, key: StoredKey) -> StoredKey:
        return self.kept.setdefault(key.id, key)

    async def close_for_good(self, key_id: str, at: datetime) -> StoredKey | None:
        return self._changed(key_id, lambda key: replace(key, closed_at=key.closed_at or at))

    async def shred(self, key_id: str, at: datetime) -> StoredKey | None:
        def gone(key: StoredKey) -> StoredKey:
            moment = key.shredded_at or at
            return replace(key, wrapped=None, closed_at=key.closed_at or at, shredded_at=moment)

        return self._changed(key_id, gone)

    async def rewrap(self, key_id: str, former: bytes, wrapped: bytes) -> bool:
        there = self.kept.get(key_id)
        if there is None or there.wrapped != former:
            return False
        self.kept[key_id] = replace(there, wrapped=wrapped)
        return True

    async def ids(self, after: str, limit: int) -> list[str]:
        return sorted(key_id for key_id, key in self.kept.items() if key_id > after and key.wrapped)[:limit]

    async def close(self) -> None:
        """There is nothing to close."""

    def _changed(self, key_id: str, change) -> StoredKey | None:  # type: ignore[no-untyped-def]
        if key_id in self.kept:
            self.kept[key_id] = change(self.kept[key_id])
        return self.kept.get(key_id)


def keys_in_memory(box: SecretBox | None = None) -> SubjectKeys:
    return SubjectKeys(KeysInMemory(), box or SecretBox({"test": bytes(range(32))}))


SHARED = KeysInMemory()


def shared_keys() -> SubjectKeys:
    """Keys that all databases of this process have in common, as the processes of one installation do."""
    return SubjectKeys(SHARED, SecretBox({"test": bytes(range(32))}), cache_seconds=0.05)
