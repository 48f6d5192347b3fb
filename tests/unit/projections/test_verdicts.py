"""Which outcomes break which bound of a canary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from codeagent.messages.canaries import Bound, CanaryPlan, Metric
from codeagent.projections.canaries import MOST_RUNS, CanaryRun
from codeagent.projections.verdicts import CHANCE, judge, weigh

GOOD = CanaryRun(is_canary=False, outcome="succeeded", seconds=60.0, cost_usd=0.1, answered=1, rejected=0)
BAD = replace(GOOD, outcome="failed")


def plan(*bounds: Bound, minimum_runs: int = 20) -> CanaryPlan:
    return CanaryPlan(weight=10, minimum_runs=minimum_runs, bounds=bounds)


def held(canary: Sequence[CanaryRun], active: Sequence[CanaryRun] = (GOOD,) * 300) -> Sequence[CanaryRun]:
    return [*(replace(run, is_canary=True) for run in canary), *active]


SUCCESS = Bound(metric=Metric.SUCCESS_RATE, relative=0.1)
BROKEN: list[tuple[Bound, CanaryRun]] = [
    (SUCCESS, BAD),
    (Bound(metric=Metric.SUCCESS_RATE, absolute=0.6), BAD),
    (Bound(metric=Metric.APPROVAL_REJECTION_RATE, relative=0.2), replace(GOOD, rejected=1)),
    (Bound(metric=Metric.APPROVAL_REJECTION_RATE, absolute=0.3), replace(GOOD, rejected=1)),
    (Bound(metric=Metric.EXCUSED_RATE, relative=0.2), replace(GOOD, outcome="excused")),
    (Bound(metric=Metric.COST_USD_P50, relative=2.0), replace(GOOD, cost_usd=0.3)),
    (Bound(metric=Metric.COST_USD_P95, absolute=0.25), replace(GOOD, cost_usd=0.3)),
    (Bound(metric=Metric.DURATION_SECONDS_P50, absolute=100.0), replace(GOOD, seconds=400.0)),
    (Bound(metric=Metric.DURATION_SECONDS_P95, relative=3.0), replace(GOOD, seconds=400.0)),
]


@pytest.mark.parametrize(("bound", "run"), BROKEN, ids=lambda value: getattr(value, "metric", ""))
def test_a_bound_is_broken_by_what_it_is_about_and_by_nothing_else(bound: Bound, run: CanaryRun) -> None:
    verdict = judge(plan(bound), held([run] * 40))
    assert verdict is not None
    assert (verdict.bound, verdict.canary.runs, verdict.active.runs) == (bound, 40, 300)
    assert 0 < verdict.chance <= CHANCE
    assert judge(plan(bound), held([GOOD] * 40)) is None
    about = bound.metric.partition("_")[0]
    others = [each for each, _ in BROKEN if not each.metric.startswith(about)]
    assert judge(plan(*others), held([run] * 40)) is None


def test_the_surest_of_several_broken_bounds_is_named_with_its_figures() -> None:
    twice = replace(BAD, seconds=400.0)
    both = plan(Bound(metric=Metric.DURATION_SECONDS_P50, relative=1.0), SUCCESS)
    verdict = judge(both, held([twice] * 30 + [GOOD] * 10, [GOOD] * 90 + [BAD] * 10))
    assert verdict is not None
    assert verdict.chance == min(
        each.chance for each in weigh(both, held([twice] * 30 + [GOOD] * 10, [GOOD] * 90 + [BAD] * 10))
    )
    [_, success] = weigh(both, held([twice] * 30 + [GOOD] * 10, [GOOD] * 90 + [BAD] * 10))
    assert (success.canary.value, success.active.value) == (0.25, 0.9)
    assert (success.canary.counted, success.canary.failed, success.active.counted) == (40, 30, 100)


@pytest.mark.parametrize("outcome", ["canceled", "excused"])
def test_what_is_the_platforms_fault_or_a_persons_wish_does_not_count(outcome: str) -> None:
    aside = replace(BAD, outcome=outcome)
    assert judge(plan(SUCCESS), held([aside] * 200)) is None
    verdict = judge(plan(SUCCESS), held([aside] * 200 + [BAD] * 20))
    assert verdict is not None
    assert (verdict.canary.counted, verdict.canary.value) == (20, 0.0)


def test_nothing_is_decided_on_fewer_runs_than_are_asked_for() -> None:
    assert judge(plan(SUCCESS, minimum_runs=30), held([BAD] * 29)) is None
    assert judge(plan(SUCCESS, minimum_runs=30), held([BAD] * 30)) is not None


def test_runs_at_work_count_for_the_canary_so_that_failing_soon_does_not_decide() -> None:
    at_work = replace(GOOD, outcome="open", seconds=None)
    assert judge(plan(SUCCESS), held([BAD] * 25 + [at_work] * 200)) is None
    assert judge(plan(Bound(metric=Metric.SUCCESS_RATE, absolute=0.6)), held([BAD] * 25 + [at_work] * 75)) is None
    assert judge(plan(SUCCESS), held([BAD] * 25, [GOOD] * 20 + [at_work] * 300)) is None
    assert judge(plan(SUCCESS), held([BAD] * 25 + [at_work] * 5)) is not None


def test_more_bounds_ask_for_more_evidence_of_each() -> None:
    few = held([BAD] * 7 + [GOOD] * 3, [GOOD] * 90)
    alone, among = weigh(plan(SUCCESS), few)[0], weigh(plan(SUCCESS, *(bound for bound, _ in BROKEN[3:])), few)[0]
    assert alone.chance < 0.1
    assert among.chance == pytest.approx(7 * alone.chance)


def test_as_many_runs_as_are_ever_looked_at_do_not_hold_anybody_up() -> None:
    many = [replace(GOOD, seconds=float(n), is_canary=n % 10 == 0) for n in range(MOST_RUNS)]
    assert judge(plan(Bound(metric=Metric.DURATION_SECONDS_P95, relative=1.0)), many) is None
