"""A canary as its agent's row has it, and which runs it takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from codeagent.errors import InvalidInput
from codeagent.messages.canaries import Bound, CanaryPlan, CanaryVerdict, Metric
from codeagent.messages.conversation import Data

DEFAULT_BOUNDS = (
    Bound(metric=Metric.SUCCESS_RATE, relative=0.1),
    Bound(metric=Metric.APPROVAL_REJECTION_RATE, relative=0.2),
    Bound(metric=Metric.COST_USD_P50, relative=2.0),
    Bound(metric=Metric.DURATION_SECONDS_P95, relative=3.0),
)


class Canary(Data):
    """A canary at work. `began` is the version of the agent's stream with which it did."""

    number: int
    began: int
    began_at: datetime
    plan: CanaryPlan


class RolledBack(Data):
    """The end of the newest canary that was rolled back."""

    number: int
    at: datetime
    verdict: CanaryVerdict


@dataclass(frozen=True, slots=True)
class Unit:
    """Whose runs get the same version while a canary runs: those of a session, else of a project, else of whoever
    submits them."""

    kind: Literal["session", "project", "principal"]
    id: str


def takes(agent_id: str, canary: Canary, unit: Unit) -> bool:
    """Whether the canary's version is what runs of `unit` get. The same on every edge and at any time; another version
    of the agent meets others, and a unit that gets it at some weight does so at every higher one."""
    drawn = sha256("\x1f".join((agent_id, str(canary.number), unit.kind, unit.id)).encode()).digest()
    return int.from_bytes(drawn[:8]) * 100 < canary.plan.weight << 64


def check_bounds(bounds: tuple[Bound, ...]) -> tuple[Bound, ...]:
    """Raises `InvalidInput` (`unsupported_bound`) for what can be no bound of its metric, or is one twice."""
    for place, bound in enumerate(bounds):
        if (bound.relative is None) == (bound.absolute is None):
            raise _unsupported(place, "A bound is relative or absolute.")
        if bound.relative is not None and not _is_relative(bound.metric, bound.relative):
            what = "0 to 1, in points of the rate" if bound.metric.is_rate else "1 to 100, times the active version's"
            raise _unsupported(place, f"A relative bound of {bound.metric} is {what}.")
        if bound.absolute is not None and not 0 <= bound.absolute <= (1 if bound.metric.is_rate else 10**6):
            raise _unsupported(place, f"{bound.metric} is never {bound.absolute}.")
        if bound in bounds[:place]:
            raise _unsupported(place, "The bound is there already.")
    return bounds


def _is_relative(metric: Metric, value: float) -> bool:
    return 0 <= value <= 1 if metric.is_rate else 1 <= value <= 100


def _unsupported(place: int, detail: str) -> InvalidInput:
    return InvalidInput(detail, code="unsupported_bound", pointer=f"/bounds/{place}")
