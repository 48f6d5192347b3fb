"""Canaries: a version of an agent that some of the runs are given, within stated bounds, before all are."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from codeagent.messages.conversation import Data
from codeagent.messages.values import absent


class Metric(StrEnum):
    """What a canary is held to. Rates are shares of runs, percentiles those of runs that succeeded or failed."""

    SUCCESS_RATE = "success_rate"
    APPROVAL_REJECTION_RATE = "approval_rejection_rate"
    EXCUSED_RATE = "excused_rate"
    COST_USD_P50 = "cost_usd_p50"
    COST_USD_P95 = "cost_usd_p95"
    DURATION_SECONDS_P50 = "duration_seconds_p50"
    DURATION_SECONDS_P95 = "duration_seconds_p95"

    @property
    def is_rate(self) -> bool:
        return self.value.endswith("_rate")


class Bound(Data):
    """One of both is set. `relative`: by how much a rate may be worse than the active version's (0.1 is ten points in a
    hundred), or how many times the active version's a percentile may be. `absolute`: the least success rate, or the
    most of anything else."""

    metric: Metric
    relative: float | None = Field(default=None, exclude_if=absent)
    absolute: float | None = Field(default=None, exclude_if=absent)


class CanaryPlan(Data):
    """`weight` percent of the runs. Of each bound nothing is decided on fewer than `minimum_runs` of the canary's that
    tell of its metric."""

    weight: int = Field(ge=1, le=50)
    minimum_runs: int = Field(ge=5, le=1_000)
    bounds: tuple[Bound, ...]


class ArmFigures(Data):
    """What the runs of one side came to. `value` is the metric's, of the `counted` runs that tell of it."""

    runs: int
    open: int
    succeeded: int
    failed: int
    canceled: int
    excused: int
    counted: int
    value: float | None


class CanaryVerdict(Data):
    """The bound that a canary has broken, and the figures that decided it. `chance` is that of as much evidence, ever
    in a canary, had every bound been kept."""

    bound: Bound
    chance: float
    canary: ArmFigures
    active: ArmFigures
