"""Where a reply is kept, and how much is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one request's reply, for how long it is kept there, and whose run asks."""

    tenant_id: str
    key: str
    ttl: timedelta
    principal_id: str

    @property
    def place(self) -> str:
        """What its sealed value is bound to."""
        return f"{self.tenant_id}/response_cache/{self.key}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The longest reply that is kept, and how many are of one tenant and how long, sealed, all of them together."""

    reply_bytes: int = 256 << 10
    tenant_rows: int = 5_000
    tenant_bytes: int = 64 << 20


BOUNDS = Bounds()
