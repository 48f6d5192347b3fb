"""Whether a canary has broken one of its bounds.

A version that keeps all of them is found to have broken one with a chance of `CHANCE` at most, over the whole canary
and however often somebody looks: each of its bounds has an equal part of that, and what is held against a bound is an
e-value (`evidence`). Runs that are still at work count for the canary and against the active version, so that those
which end soon do not decide for those which end late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp

from codeagent.messages.canaries import ArmFigures, Bound, CanaryPlan, CanaryVerdict, Metric
from codeagent.projections import evidence
from codeagent.projections.canaries import CanaryRun
from codeagent.projections.evidence import Tosses, Values
from codeagent.projections.outcomes import COUNTED, RunOutcome

CHANCE = 0.01
_Reads = Callable[[CanaryRun], float | None]
_QUANTILES: dict[Metric, tuple[float, _Reads]] = {
    Metric.COST_USD_P50: (0.5, lambda run: run.cost_usd),
    Metric.COST_USD_P95: (0.95, lambda run: run.cost_usd),
    Metric.DURATION_SECONDS_P50: (0.5, lambda run: run.seconds),
    Metric.DURATION_SECONDS_P95: (0.95, lambda run: run.seconds),
}


def _failed(run: CanaryRun) -> bool | None:
    return run.outcome == RunOutcome.FAILED if run.outcome in COUNTED else None


def _rejected(run: CanaryRun) -> bool | None:
    return run.rejected > 0 if run.outcome in COUNTED and run.answered else None


def _excused(run: CanaryRun) -> bool | None:
    return run.outcome == RunOutcome.EXCUSED if run.outcome in {*COUNTED, RunOutcome.EXCUSED} else None


_BAD: dict[Metric, Callable[[CanaryRun], bool | None]] = {
    Metric.SUCCESS_RATE: _failed,
    Metric.APPROVAL_REJECTION_RATE: _rejected,
    Metric.EXCUSED_RATE: _excused,
}
"""Whether a run is a bad one; None where it does not tell."""


@dataclass(frozen=True, slots=True)
class _Arm:
    """The runs of one side."""

    runs: Sequence[CanaryRun]

    @property
    def open(self) -> int:
        return sum(run.outcome == RunOutcome.OPEN for run in self.runs)

    def tosses(self, metric: Metric) -> Tosses:
        told = Counter(_BAD[metric](run) for run in self.runs)
        return Tosses(told[True], told[False])

    def values(self, metric: Metric) -> Values:
        reads = _QUANTILES[metric][1]
        read = (reads(run) for run in self.runs if run.outcome in COUNTED)
        return Values(sorted(value for value in read if value is not None), self.open)

    def figures(self, metric: Metric) -> ArmFigures:
        told = Counter(run.outcome for run in self.runs)
        outcomes = {name.value: told[name] for name in RunOutcome}
        counted, value = self._rate(metric) if metric.is_rate else self._percentile(metric)
        return ArmFigures(runs=len(self.runs), **outcomes, counted=counted, value=value)

    def _rate(self, metric: Metric) -> tuple[int, float | None]:
        tosses = self.tosses(metric)
        bad = tosses.rate
        good = None if bad is None else 1 - bad
        return tosses.bad + tosses.good, good if metric is Metric.SUCCESS_RATE else bad

    def _percentile(self, metric: Metric) -> tuple[int, float | None]:
        # As in the statistics of versions.
        known = self.values(metric).known
        return len(known), known[ceil(len(known) * _QUANTILES[metric][0]) - 1] if known else None


def weigh(plan: CanaryPlan, runs: Sequence[CanaryRun]) -> Sequence[CanaryVerdict]:
    """What is held against each bound so far. Takes a tenth of a second for `MOST_RUNS`."""
    canary = _Arm([run for run in runs if run.is_canary])
    active = _Arm([run for run in runs if not run.is_canary])
    return [
        CanaryVerdict(
            bound=bound,
            chance=min(1.0, len(plan.bounds) * exp(-_against(bound, canary, active))),
            canary=canary.figures(bound.metric),
            active=active.figures(bound.metric),
        )
        for bound in plan.bounds
    ]


def judge(plan: CanaryPlan, runs: Sequence[CanaryRun]) -> CanaryVerdict | None:
    """The bound that is broken for certain, as far as `CHANCE` is; the surest of several."""
    broken = [
        verdict
        for verdict in weigh(plan, runs)
        if verdict.chance <= CHANCE and verdict.canary.counted >= plan.minimum_runs
    ]
    return min(broken, key=lambda verdict: verdict.chance, default=None)


def _against(bound: Bound, canary: _Arm, active: _Arm) -> float:
    metric = bound.metric
    if metric.is_rate:
        tosses = canary.tosses(metric)
        tosses = Tosses(tosses.bad, tosses.good + canary.open)
        if bound.absolute is not None:
            most = 1 - bound.absolute if metric is Metric.SUCCESS_RATE else bound.absolute
            return evidence.against_at_most(tosses, most)
        others = active.tosses(metric)
        others = Tosses(others.bad + active.open, others.good)
        return evidence.against_worse_by_at_most(tosses, others, bound.relative or 0.0)
    quantile = _QUANTILES[metric][0]
    if bound.absolute is not None:
        return evidence.against_percentile(canary.values(metric), quantile, bound.absolute)
    factor = bound.relative or 1.0
    return evidence.against_times_at_most(canary.values(metric), active.values(metric), quantile, factor)
