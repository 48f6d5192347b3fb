"""Pages of events."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class EventPage(BaseModel):
    """Events as structured CloudEvents. `next_after` continues the page; None at the head of the stream."""

    items: list[dict[str, Any]]
    next_after: int | None
    head: int


class FeedPage(BaseModel):
    """Events of all runs as structured CloudEvents. `cursor` is where the page ends, to follow from there;
    `next_cursor` the same while there is more to read now, None otherwise."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    cursor: str
