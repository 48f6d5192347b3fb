"""The only source of time and identifiers. `agent` and `messages` may not import it: what they decide must replay."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def now() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC)


def new_uuid() -> UUID:
    """A fresh UUIDv7: unique everywhere, ordered by time within a process."""
    return uuid7()
