"""A breaker on an event loop: who is let through, and what counts."""

from __future__ import annotations

import pytest

from codeagent.providers.breaker import Breaker, CircuitOpen, Outcome, Standing, Transition, outcome_of
from codeagent.providers.protocol import ProviderError


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def breaker(clock: Clock, changes: list[tuple[str, str, str]]) -> Breaker:
    def heard(change: Transition) -> None:
        changes.append((change.breaker, change.old, change.new))

    return Breaker("acme", failures_to_open=3, open_seconds=30.0, listeners=[heard], monotonic=clock)


def calls(breaker: Breaker, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        breaker.record(breaker.admit(), outcome)


def test_failures_in_a_row_open_it_and_a_success_in_between_starts_the_count_again(breaker: Breaker) -> None:
    calls(breaker, "failure", "failure", "success", "failure", "failure")
    assert breaker.state == "closed"
    calls(breaker, "failure")
    assert breaker.state == "open"


def test_while_open_nobody_calls_and_is_told_how_long(breaker: Breaker, clock: Clock) -> None:
    calls(breaker, *["failure"] * 3)
    clock.seconds += 12
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.retry_after_seconds == 18
    assert (refused.value.reason, refused.value.retryable) == ("circuit_open", True)


def test_half_open_admits_one_probe_of_many(breaker: Breaker, clock: Clock) -> None:
    calls(breaker, *["failure"] * 3)
    clock.seconds += 30
    probe = breaker.admit()
    for _ in range(20):
        with pytest.raises(CircuitOpen):
            breaker.admit()
    breaker.record(probe, "success")
    assert breaker.state == "closed"
    breaker.admit()


def test_a_failed_probe_opens_it_for_the_whole_time_again(breaker: Breaker, clock: Clock) -> None:
    calls(breaker, *["failure"] * 3)
    clock.seconds += 30
    calls(breaker, "failure")
    assert breaker.state == "open"
    clock.seconds += 29
    with pytest.raises(CircuitOpen):
        breaker.admit()


def test_a_cancelled_probe_leaves_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    calls(breaker, *["failure"] * 3)
    clock.seconds += 30
    breaker.record(breaker.admit(), "neutral")
    assert breaker.state == "half-open"
    breaker.record(breaker.admit(), "success")
    assert breaker.state == "closed"


def test_cancellations_count_as_nothing(breaker: Breaker) -> None:
    calls(breaker, "failure", "failure", *["neutral"] * 10)
    assert breaker.state == "closed"
    calls(breaker, "failure")
    assert breaker.state == "open"


def test_calls_from_before_the_trip_neither_close_it_nor_keep_it_open(breaker: Breaker, clock: Clock) -> None:
    slow = [breaker.admit() for _ in range(4)]
    calls(breaker, *["failure"] * 3)
    clock.seconds += 20
    breaker.record(slow[0], "failure")
    breaker.record(slow[1], "success")
    assert breaker.state == "open"
    clock.seconds += 10
    probe = breaker.admit()
    breaker.record(slow[2], "success")
    breaker.record(slow[3], "failure")
    assert breaker.state == "half-open"
    breaker.record(probe, "success")
    assert breaker.state == "closed"


def test_listeners_hear_every_change(breaker: Breaker, clock: Clock, changes: list[tuple[str, str, str]]) -> None:
    calls(breaker, *["failure"] * 3)
    clock.seconds += 30
    calls(breaker, "success")
    assert changes == [
        ("acme", "closed", "open"),
        ("acme", "open", "half-open"),
        ("acme", "half-open", "closed"),
    ]


def test_an_open_state_from_the_log_is_continued_after_a_restart(breaker: Breaker, clock: Clock) -> None:
    breaker.restore_open(seconds_ago=10)
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.retry_after_seconds == 20
    clock.seconds += 20
    assert breaker.admit().probe


def test_what_the_log_has_told_is_no_news(breaker: Breaker, changes: list[tuple[str, str, str]]) -> None:
    breaker.restore_open(seconds_ago=10)
    assert changes == []


def test_it_says_how_it_stands_and_why(breaker: Breaker, clock: Clock) -> None:
    assert breaker.standing == Standing("closed", None, None, None, "")
    calls(breaker, "success")
    clock.seconds += 5
    breaker.record(breaker.admit(), "failure", "timeout")
    clock.seconds += 2
    assert breaker.standing == Standing("closed", 2, 7, 2, "timeout")


def test_one_that_is_over_is_not(breaker: Breaker) -> None:
    breaker.restore_open(seconds_ago=31)
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("overloaded", "failure"),
        ("timeout", "failure"),
        ("connection", "failure"),
        ("internal", "failure"),
        ("bad_response", "failure"),
        ("rate_limited", "neutral"),
        ("authentication", "success"),
        ("permission", "success"),
        ("not_found", "success"),
        ("invalid_request", "success"),
        ("context_overflow", "success"),
        ("content_filtered", "success"),
    ],
)
def test_a_bad_request_or_key_says_nothing_bad_about_the_vendor(reason: str, outcome: str) -> None:
    assert outcome_of(ProviderError("x", reason=reason, retryable=False)) == outcome
