"""Bodies of requests and answers about canaries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field

from codeagent.agent_registry.canary import DEFAULT_BOUNDS, Canary, check_bounds
from codeagent.edge.models import Strict, Whole
from codeagent.messages.canaries import Bound, CanaryPlan, CanaryVerdict, Metric

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class BoundBody(Strict):
    """A bound, which is relative or absolute.

    Relative: by how much a rate may be worse than that of the active version's runs meanwhile (0.1 is ten points in a
    hundred), or how many times the active version's a percentile may be. Absolute: the least success rate, or the most
    of anything else."""

    metric: Metric
    relative: Number | None = Field(default=None, ge=0, le=100)
    absolute: Number | None = Field(default=None, ge=0, le=1_000_000)


class CanaryBody(Strict):
    """A canary to begin. Without `bounds`: ten points of success rate, twenty of rejected approvals, twice the median
    cost and three times the duration that 95 % of the runs do not exceed."""

    weight: Whole = Field(default=10, ge=1, le=50, description="Percent of the runs that it gets.")
    minimum_runs: Whole = Field(
        default=20,
        ge=5,
        le=1_000,
        description="On fewer of its runs that tell of a bound's metric nothing is decided.",
    )
    bounds: tuple[BoundBody, ...] | None = Field(default=None, min_length=1, max_length=10)

    def plan(self) -> CanaryPlan:
        """Raises `InvalidInput` (`unsupported_bound`)."""
        said = None if self.bounds is None else tuple(Bound(**bound.model_dump()) for bound in self.bounds)
        return CanaryPlan(
            weight=self.weight,
            minimum_runs=self.minimum_runs,
            bounds=DEFAULT_BOUNDS if said is None else check_bounds(said),
        )


class CanaryModel(BaseModel):
    """A canary at work, and what is held against each of its bounds. Once `chance` of one is `decides_at` at most, it
    is rolled back."""

    number: int
    active: int
    weight: int
    minimum_runs: int
    began_at: datetime
    decides_at: float
    bounds: list[CanaryVerdict]

    @classmethod
    def of(cls, canary: Canary, active: int, decides_at: float, held: Sequence[CanaryVerdict]) -> Self:
        plan = canary.plan
        return cls(
            number=canary.number,
            active=active,
            weight=plan.weight,
            minimum_runs=plan.minimum_runs,
            began_at=canary.began_at,
            decides_at=decides_at,
            bounds=list(held),
        )
