"""A route is not removed sooner than promised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from codeagent.edge.deprecation import SHORTEST_NOTICE, Retirement

MOMENT = datetime(2027, 1, 1, tzinfo=UTC)


def test_half_a_year_is_enough() -> None:
    headers = dict(Retirement(MOMENT, MOMENT + SHORTEST_NOTICE, "/docs").headers())
    assert headers[b"deprecation"] == b"@1798761600"
    assert b"successor-version" not in headers[b"link"]


@pytest.mark.parametrize(
    "moments",
    [
        (MOMENT, MOMENT + SHORTEST_NOTICE - timedelta(seconds=1)),
        (MOMENT, MOMENT),
        (MOMENT.replace(tzinfo=None), MOMENT + SHORTEST_NOTICE),
        (MOMENT, (MOMENT + SHORTEST_NOTICE).replace(tzinfo=None)),
    ],
)
def test_less_is_refused_and_so_are_moments_without_a_zone(moments: tuple[datetime, datetime]) -> None:
    with pytest.raises(ValueError, match=r"route stays|time zone"):
        Retirement(*moments, "/docs")
