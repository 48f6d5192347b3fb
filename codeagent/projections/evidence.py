"""How much outcomes say against a claim about them: the logarithm of an e-value, which may be looked at any time.

Each run is a toss with an unknown rate. Against one rate stands a mixture of all rates (the beta distribution with both
parameters 1/2): the ratio of how likely either makes the tosses so far is a martingale with mean 1 if the one rate is
the true one, so that, by Ville's inequality, it ever reaches `1 / chance` with that chance at most. No plan of looks is
needed. Against a claim that many rates fulfil counts the least that stands against any of them.

Percentiles are rates of what exceeds a value, which no outlier moves far and which asks for no distribution.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, lgamma, log, log1p, pi

_STEPS = 60
"""Of a search that leaves two thirds of a range: to a part in 10**10."""


@dataclass(frozen=True, slots=True)
class Tosses:
    """How often it was bad, and how often good."""

    bad: int
    good: int

    @property
    def rate(self) -> float | None:
        """Of the bad ones."""
        total = self.bad + self.good
        return self.bad / total if total else None


@dataclass(frozen=True, slots=True)
class Values:
    """Figures of runs, in ascending order, and how many more there will be of runs that are still at work."""

    known: Sequence[float]
    open: int = 0

    def above(self, limit: float) -> int:
        return len(self.known) - bisect_right(self.known, limit)

    def below(self, limit: float) -> int:
        return bisect_left(self.known, limit)


def against_rate(tosses: Tosses, rate: float) -> float:
    """Against the claim that this is the rate of the bad ones."""
    bad, good = tosses.bad, tosses.good
    if (bad and rate <= 0) or (good and rate >= 1):
        return inf
    mixture = lgamma(bad + 0.5) + lgamma(good + 0.5) - lgamma(bad + good + 1) - log(pi)
    return mixture - (bad * log(rate) if bad else 0.0) - (good * log1p(-rate) if good else 0.0)


def against_at_most(tosses: Tosses, rate: float) -> float:
    """Against the claim that the rate of the bad ones is this at most."""
    return against_rate(tosses, min(rate, tosses.rate or 0.0))


def against_worse_by_at_most(canary: Tosses, active: Tosses, margin: float) -> float:
    """Against the claim that the canary's rate of bad ones is above the active version's by `margin` at most.

    The two do not wait for each other, so that both martingales multiply. What stands against the likeliest pair of
    rates that fulfils the claim is looked for on its edge: all of it is convex.
    """
    observed = canary.rate or 0.0, active.rate or 0.0
    if observed[0] <= observed[1] + margin:
        return against_rate(canary, observed[0]) + against_rate(active, observed[1])
    return _least(lambda rate: against_rate(canary, rate + margin) + against_rate(active, rate), 0.0, 1.0 - margin)


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a convex function."""
    for _ in range(_STEPS):
        third = (high - low) / 3
        if function(low + third) <= function(high - third):
            high -= third
        else:
            low += third
    return function((low + high) / 2)


def against_percentile(canary: Values, quantile: float, limit: float) -> float:
    """Against the claim that this quantile of the canary's values is `limit` at most. Runs at work count as below."""
    return against_at_most(_exceeding(canary, limit), 1 - quantile)


def against_times_at_most(canary: Values, active: Values, quantile: float, factor: float) -> float:
    """Against the claim that this quantile of the canary's values is at most `factor` times the active version's.

    Whatever the latter is, one limit is both: at most so many of the active version's values are above it and below
    it, and, by the claim, at most so many of the canary's are above `factor` times it. So every limit is tried, and the
    one that can be upheld best counts. Runs at work count in favour of the claim wherever they could.
    """
    scaled = Values([factor * value for value in active.known], active.open)

    def against(limit: float) -> float:
        return against_percentile(canary, quantile, limit) + _against_quantile(scaled, quantile, limit)

    return min(against(limit) for limit in {0.0, *scaled.known, *canary.known})


def _against_quantile(values: Values, quantile: float, limit: float) -> float:
    """Against the claim that `limit` is this quantile: the mean of what stands against either half of it."""
    below = values.below(limit)
    too_low = against_at_most(_exceeding(values, limit), 1 - quantile)
    too_high = against_at_most(Tosses(below, len(values.known) - below + values.open), quantile)
    most = max(too_low, too_high)
    return most + log((exp(too_low - most) + exp(too_high - most)) / 2)


def _exceeding(values: Values, limit: float) -> Tosses:
    above = values.above(limit)
    return Tosses(above, len(values.known) - above + values.open)
