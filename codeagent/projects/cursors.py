"""Places in lists that are kept newest first, opaque to clients: what comes after one does not depend on what is
added meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from codeagent.errors import Rejected
from codeagent.messages.ids import parse_typed_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def format_cursor(created_at: datetime, item_id: str) -> str:
    return f"{(created_at - _EPOCH) // _MICROSECOND:x}~{item_id}"


def parse_cursor(prefix: str, cursor: str) -> tuple[datetime, str]:
    """Raises `Rejected` (`malformed_cursor`) for what is no place in a list of ids with this prefix."""
    moment, _, item_id = cursor.partition("~")
    try:
        created_at = _EPOCH + int(moment, 16) * _MICROSECOND
    except (ValueError, OverflowError):
        raise Rejected("Not a cursor of this list.", code="malformed_cursor") from None
    if parse_typed_id(prefix, item_id) is None:
        raise Rejected("Not a cursor of this list.", code="malformed_cursor")
    return created_at, item_id
