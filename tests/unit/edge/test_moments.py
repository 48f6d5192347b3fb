"""Moments and days in requests: what RFC 3339 writes, and nothing else that could be read as one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from codeagent.edge.moments import Day, Moment

MOMENT, DAY = TypeAdapter(Moment), TypeAdapter(Day)


@pytest.mark.parametrize("text", ["2026-02-21T10:00:00Z", "2026-02-21t10:00:00.000z", "2026-02-21T12:30:00+02:30"])
def test_a_moment_is_one_in_utc(text: str) -> None:
    moment = MOMENT.validate_python(text)
    assert (moment, moment.tzinfo) == (datetime(2026, 2, 21, 10, tzinfo=UTC), UTC)


@pytest.mark.parametrize(
    "given",
    [
        *(0, 0.5, True, "0", "0.5", "1700000000", "", "now", "2026-02-21", "2026-02-21T10:00:00", "2026-02-21T10:00Z"),
        *("2026-02-30T10:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-02-21T10:00:00Z\n"),
    ],
    ids=repr,
)
def test_what_is_no_moment_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python(given)


def test_a_day_is_one_of_the_calendar() -> None:
    assert DAY.validate_python("2026-02-21") == date(2026, 2, 21)


@pytest.mark.parametrize("given", [0, "0", "0.5", "", "2026-02-30", "2026-2-1", "2026-02-21T00:00:00Z"], ids=repr)
def test_what_is_no_day_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        DAY.validate_python(given)
