"""Ranges of days of UTC that reports are asked for."""

from __future__ import annotations

from datetime import UTC, date, timedelta

from codeagent import clock
from codeagent.errors import InvalidInput

MOST_DAYS = 400
DEFAULT_DAYS = 30


def day_range(first: date | None, last: date | None, names: tuple[str, str]) -> tuple[date, date]:
    """Both ends, each included: the last one is today where none is named, the first one 29 days before it. `names`
    are those of the query's parameters. Raises `InvalidInput`."""
    first_name, last_name = names
    try:
        last = last or clock.now().astimezone(UTC).date()
        first = first or last - timedelta(days=DEFAULT_DAYS - 1)
    except OverflowError:
        raise InvalidInput("There is no such range of days.", pointer=f"query:{last_name}") from None
    if not 0 <= (last - first).days < MOST_DAYS:
        raise InvalidInput(f"The range has 1 to {MOST_DAYS} days.", pointer=f"query:{first_name}")
    return first, last
