"""When a failed process is tried again."""

from __future__ import annotations

from codeagent.embedded.supervised import Backoff


def _waits(backoff: Backoff, failures: int) -> list[float]:
    waits = []
    for _ in range(failures):
        backoff.failed(now=100.0)
        waits.append(round(backoff.not_before - 100.0, 3))
    return waits


def test_the_first_retry_is_immediate_and_the_next_ones_double_up_to_five_seconds() -> None:
    assert _waits(Backoff(), 8) == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_after_a_healthy_time_it_starts_over() -> None:
    backoff = Backoff()
    _waits(backoff, 5)
    backoff.settled()
    assert _waits(backoff, 2) == [0.0, 0.2]
