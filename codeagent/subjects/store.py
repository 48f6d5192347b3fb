"""Where subjects' keys are kept: apart from the log, so that no copy of the log brings back what was erased."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as its store has it: `wrapped` under a key-encryption key, None once it was shredded. What remains then is
    this very record, so that the subject never gets another key."""

    id: str
    tenant_id: str
    subject: str
    wrapped: bytes | None = field(repr=False)
    created_at: datetime
    closed_at: datetime | None = None
    shredded_at: datetime | None = None


class KeyStore(Protocol):
    """Every method raises `Unavailable` where the store does not answer."""

    async def fetch(self, key_ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Those of them that there are."""
        ...

    async def add(self, key: StoredKey) -> StoredKey:
        """The key under this id from now on: this one, or the one that was there before."""
        ...

    async def close_for_good(self, key_id: str, at: datetime) -> StoredKey | None:
        """Nothing new is sealed with it; None where there is none. Again is the same."""
        ...

    async def shred(self, key_id: str, at: datetime) -> StoredKey | None:
        """Its bytes are gone when this returns; None where there was none. Again is the same."""
        ...

    async def rewrap(self, key_id: str, former: bytes, wrapped: bytes) -> bool:
        """Puts `wrapped` in the place of `former`; False where that is not what is there."""
        ...

    async def ids(self, after: str, limit: int) -> list[str]:
        """The ids of all keys that have not been shredded, in their order."""
        ...

    async def close(self) -> None: ...
