"""When a delivery is tried again, without waiting for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from codeagent.webhooks.schedule import DELAYS, LONGEST_LIFE, delay_after, retry_after

MIDDLE = 0.5
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def moments(chance: float) -> list[timedelta]:
    """When each attempt of a delivery that never arrives is made, each failing at once."""
    made, at = [timedelta(0)], timedelta(0)
    while (delay := delay_after(len(made), age=at, chance=chance)) is not None:
        at += delay
        made.append(at)
    return made


def test_ten_attempts_are_made_in_three_days_and_a_few_hours() -> None:
    hours = [moment.total_seconds() / 3600 for moment in moments(MIDDLE)]
    expected = [0, 5 / 3600, 5 / 60, 35 / 60, 2.58, 7.58, 17.58, 31.58, 51.58, 75.58]
    assert hours == pytest.approx(expected, abs=0.01)


def test_chance_spreads_a_delay_by_a_tenth_to_either_side() -> None:
    for step in range(1, len(DELAYS)):
        low, high = (delay_after(step, age=timedelta(0), chance=chance) for chance in (0.0, 0.999999))
        assert low == DELAYS[step] * 0.9
        assert high is not None
        assert DELAYS[step] * 1.099 < high < DELAYS[step] * 1.1


def test_all_attempts_fit_into_a_deliverys_life_whatever_chance_says() -> None:
    assert len(moments(0.999999)) == len(DELAYS)
    assert moments(0.999999)[-1] < LONGEST_LIFE


def test_a_delivery_that_was_kept_waiting_too_long_is_given_up_early() -> None:
    assert delay_after(3, age=LONGEST_LIFE, chance=MIDDLE) is None


@pytest.mark.parametrize(
    ("asked", "waits"),
    [(60, timedelta(minutes=5)), (600, timedelta(minutes=10)), (10**8, timedelta(hours=24)), (0, timedelta(minutes=5))],
)
def test_a_receiver_may_ask_for_more_time_but_not_for_all_of_it(asked: int, waits: timedelta) -> None:
    assert delay_after(2, age=timedelta(0), chance=MIDDLE, asked=timedelta(seconds=asked)) == waits


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Mon, 23 Nov 2026 12:05:00 GMT", 300),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("Monday, 23-Nov-26 12:05:00 GMT", 300),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 40, None),
        ("٣", None),
        ("Mon, 99 Nov 2026 12:05:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert retry_after(header, NOW) == expected
