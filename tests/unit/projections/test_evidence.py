"""Evidence against a claim: how seldom it stands against what is true, at any look, and how soon against what is not.

The figures are printed (`pytest -s`). `CODEAGENT_TEST_EXAMPLES` makes it more simulated canaries than the few here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import exp, inf, log
from random import Random

import pytest

from codeagent.projections.evidence import (
    Tosses,
    Values,
    against_at_most,
    against_percentile,
    against_rate,
    against_times_at_most,
    against_worse_by_at_most,
)
from codeagent.projections.verdicts import CHANCE

CANARIES = int(os.environ.get("CODEAGENT_TEST_EXAMPLES", "15"))
ENOUGH = log(4 / CHANCE)
"""With the four bounds that a canary has where nobody says others."""
WEIGHT = 0.1


def test_the_ratio_has_mean_one_if_the_rate_is_the_true_one() -> None:
    """Over all that eight tosses can come to: not about one, but one."""
    for rate in (0.05, 0.3, 0.5, 0.9):
        mean = 0.0
        for outcome in product((0, 1), repeat=8):
            bad = sum(outcome)
            mean += rate**bad * (1 - rate) ** (8 - bad) * exp(against_rate(Tosses(bad, 8 - bad), rate))
        assert mean == pytest.approx(1.0)


def test_what_cannot_be_is_refuted_for_certain_and_nothing_by_nothing() -> None:
    assert against_rate(Tosses(1, 9), 0.0) == against_rate(Tosses(9, 1), 1.0) == inf
    assert against_rate(Tosses(0, 0), 0.3) == pytest.approx(0.0)
    assert against_worse_by_at_most(Tosses(0, 0), Tosses(0, 0), 0.1) == pytest.approx(0.0)
    assert against_times_at_most(Values(()), Values(()), 0.95, 2.0) == pytest.approx(0.0)


def test_against_many_rates_stands_what_stands_against_the_likeliest_of_them() -> None:
    assert against_at_most(Tosses(8, 2), 0.3) == against_rate(Tosses(8, 2), 0.3)
    assert against_at_most(Tosses(1, 9), 0.3) == against_rate(Tosses(1, 9), 0.1) < 0


def test_the_likeliest_pair_of_rates_is_found() -> None:
    canary, active = Tosses(12, 8), Tosses(20, 180)
    pairs = [(rate / 1_000 + 0.1, rate / 1_000) for rate in range(1, 900)]
    by_hand = min(against_rate(canary, mine) + against_rate(active, other) for mine, other in pairs)
    assert against_worse_by_at_most(canary, active, 0.1) == pytest.approx(by_hand, abs=1e-3)
    assert against_worse_by_at_most(Tosses(2, 18), active, 0.1) < 0, "it is none the worse"


def test_one_run_that_takes_for_ever_is_no_evidence_and_many_are() -> None:
    usual = Values(sorted(60.0 + n for n in range(400)))
    assert against_times_at_most(Values([*(61.0 + n for n in range(30)), 1e9]), usual, 0.95, 2.0) < ENOUGH
    assert against_times_at_most(Values([1_500.0 + n for n in range(30)]), usual, 0.95, 2.0) > ENOUGH
    assert against_percentile(Values([600.0] * 30), 0.95, 500.0) > ENOUGH


def test_what_may_be_some_times_as_much_is_held_to_so_many_times() -> None:
    usual, dearer = Values([100.0 + n / 10 for n in range(400)]), Values([300.0 + n for n in range(40)])
    assert against_times_at_most(dearer, usual, 0.5, 2.0) > ENOUGH
    assert against_times_at_most(dearer, usual, 0.5, 4.0) < 0


def test_equal_values_all_of_them_are_not_slower_than_themselves() -> None:
    assert against_times_at_most(Values([60.0] * 50), Values([60.0] * 450), 0.95, 1.0) < 0


def test_runs_at_work_count_in_favour_of_the_canary() -> None:
    slow, usual = [600.0] * 30, [60.0] * 400
    assert against_times_at_most(Values(slow), Values(usual), 0.95, 2.0) > ENOUGH
    assert against_times_at_most(Values(slow, open=400), Values(usual), 0.95, 2.0) < ENOUGH
    assert against_times_at_most(Values(slow), Values(usual, open=400), 0.95, 2.0) < ENOUGH


@dataclass(frozen=True)
class Found:
    """What simulated canaries came to: in how many the claim was refuted, after how many runs in half of these."""

    refuted: int
    all_runs: int | None
    canary_runs: int | None


def simulated(look: Callable[[Random, int], tuple[int, int] | None], runs: int) -> Found:
    found = sorted(filter(None, (look(Random(seed), runs) for seed in range(CANARIES))))
    middle = found[len(found) // 2] if found else (None, None)
    return Found(len(found), *middle)


def rates(canary_fails: float, active_fails: float, margin: float) -> Callable[[Random, int], tuple[int, int] | None]:
    """One canary that is looked at after each of its runs."""

    def look(random: Random, runs: int) -> tuple[int, int] | None:
        mine, others = [0, 0], [0, 0]
        for run in range(1, runs + 1):
            if random.random() >= WEIGHT:
                others[random.random() >= active_fails] += 1
                continue
            mine[random.random() >= canary_fails] += 1
            if against_worse_by_at_most(Tosses(*mine), Tosses(*others), margin) >= ENOUGH:
                return run, sum(mine)
        return None

    return look


def percentiles(times: float, quantile: float, factor: float) -> Callable[[Random, int], tuple[int, int] | None]:
    """One canary whose values are so many times the others', of a distribution with a long tail; it is looked at after
    every tenth of its runs."""

    def look(random: Random, runs: int) -> tuple[int, int] | None:
        mine: list[float] = []
        others: list[float] = []
        for run in range(1, runs + 1):
            value = random.lognormvariate(4, 1)
            if random.random() >= WEIGHT:
                others.append(value)
                continue
            mine.append(times * value)
            if len(mine) % 10 == 0:
                known = Values(sorted(mine)), Values(sorted(others))
                if against_times_at_most(*known, quantile, factor) >= ENOUGH:
                    return run, len(mine)
        return None

    return look


def test_what_keeps_a_bound_is_refuted_less_often_than_is_said_and_what_breaks_it_soon() -> None:
    most = CHANCE * CANARIES
    kept = {
        "equal, 0 points allowed": simulated(rates(0.1, 0.1, 0.0), 500),
        "equal, 10 points allowed": simulated(rates(0.1, 0.1, 0.1), 500),
        "10 points worse, 10 allowed": simulated(rates(0.2, 0.1, 0.1), 500),
        "equal p95, 1 time allowed": simulated(percentiles(1.0, 0.95, 1.0), 500),
        "twice the p50, 2 times allowed": simulated(percentiles(2.0, 0.5, 2.0), 500),
    }
    broken = {
        "fails 9 of 10 for 1 of 10": simulated(rates(0.9, 0.1, 0.1), 500),
        "fails 7 of 10 for 1 of 10": simulated(rates(0.7, 0.1, 0.1), 800),
        "fails 5 of 10 for 1 of 10": simulated(rates(0.5, 0.1, 0.1), 2_000),
        "20 times the p95, 3 allowed": simulated(percentiles(20.0, 0.95, 3.0), 800),
        "8 times the p50, 2 allowed": simulated(percentiles(8.0, 0.5, 2.0), 800),
    }
    print(f"\n{CANARIES} canaries of each, {WEIGHT:.0%} of the runs, chance {CHANCE} in all")
    for name, found in {**kept, **broken}.items():
        print(f"{name:32} refuted {found.refuted:4}  half of them by run {found.all_runs}, {found.canary_runs} its own")
    assert all(found.refuted <= most for found in kept.values()), kept
    assert all(found.refuted >= 0.9 * CANARIES for found in broken.values()), broken
