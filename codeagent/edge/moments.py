"""Moments and days in requests: text as RFC 3339 writes it.

The library alone would take numbers as well, in a query or a body, for seconds or milliseconds since 1970.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(_DAY.pattern + r"[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")


def _moment(value: object) -> object:
    if not (isinstance(value, str) and _MOMENT.fullmatch(value)):
        raise ValueError("a moment is text such as 2026-02-21T10:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    # Hours beyond UTC may lead out of the calendar, which nothing that keeps the moment could bear.
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such moment in UTC") from None


def _day(value: object) -> object:
    if not (isinstance(value, str) and _DAY.fullmatch(value)):
        raise ValueError("a day is text such as 2026-02-21")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment), AfterValidator(_in_utc)]
"""In UTC, from a text with any offset."""
Day = Annotated[date, BeforeValidator(_day)]
