"""Places in lists, opaque to clients: what comes after one does not depend on what is added meanwhile.

A list in the order of ids has the id of a page's last item for its cursor, one in the order of times the time and the
id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from codeagent.errors import Rejected
from codeagent.messages.ids import parse_typed_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
Item = TypeVar("Item")


def malformed_cursor() -> Rejected:
    """To be raised for what is no place in a list."""
    return Rejected("Not a cursor of this list.", code="malformed_cursor")


def format_moment(moment: datetime) -> str:
    """To the microsecond, which is as the database has it."""
    return f"{(moment - _EPOCH) // _MICROSECOND:x}"


def parse_moment(text: str) -> datetime:
    """Raises `Rejected` (`malformed_cursor`)."""
    try:
        return _EPOCH + int(text, 16) * _MICROSECOND
    except (ValueError, OverflowError):
        raise malformed_cursor() from None


def format_time_cursor(created_at: datetime, item_id: str) -> str:
    return f"{format_moment(created_at)}~{item_id}"


def parse_time_cursor(prefix: str, cursor: str | None) -> tuple[datetime, str] | tuple[None, None]:
    """The place in a list of ids with this prefix; a pair of None for the list's beginning. Raises `Rejected`
    (`malformed_cursor`)."""
    if not cursor:
        return None, None
    moment, _, item_id = cursor.partition("~")
    return parse_moment(moment), _checked(prefix, item_id)


def parse_id_cursor(prefix: str, cursor: str | None) -> str | None:
    """The id that a page ended with, None for the list's beginning. Raises `Rejected` (`malformed_cursor`)."""
    return _checked(prefix, cursor) if cursor else None


def _checked(prefix: str, item_id: str) -> str:
    if parse_typed_id(prefix, item_id) is None:
        raise malformed_cursor()
    return item_id


def page_of(found: Sequence[Item], limit: int, cursor: Callable[[Item], str]) -> tuple[Sequence[Item], str | None]:
    """The page, and the cursor of the next one where there is one. `found` are the items from the page's beginning on:
    one more than `limit`, as far as there are."""
    page = found[:limit]
    return page, cursor(page[-1]) if len(found) > limit else None
