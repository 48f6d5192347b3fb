"""Which runs a canary takes, and what it can be held to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from codeagent.agent_registry.canary import DEFAULT_BOUNDS, Canary, Unit, check_bounds, takes
from codeagent.errors import InvalidInput
from codeagent.messages.canaries import Bound, CanaryPlan, Metric

UNITS = [Unit("session", f"ses_{number}") for number in range(4_000)]


def canary(weight: int, number: int = 2) -> Canary:
    plan = CanaryPlan(weight=weight, minimum_runs=20, bounds=DEFAULT_BOUNDS)
    return Canary(number=number, began=7, began_at=datetime(2026, 11, 23, tzinfo=UTC), plan=plan)


def taken(of: Canary, agent_id: str = "agt_1") -> set[str]:
    return {unit.id for unit in UNITS if takes(agent_id, of, unit)}


def test_it_takes_its_weight_of_the_units() -> None:
    for weight in (1, 10, 50):
        share = len(taken(canary(weight))) / len(UNITS)
        assert share == pytest.approx(weight / 100, abs=0.02)


def test_who_is_taken_is_always_and_at_every_higher_weight() -> None:
    assert taken(canary(10)) == taken(canary(10)) < taken(canary(30))
    # As it was when this was written: another edge, or another release, must not draw anew.
    assert sorted(taken(canary(1)))[:3] == ["ses_1045", "ses_1086", "ses_1142"]


def test_another_version_another_agent_and_another_kind_of_unit_meet_others() -> None:
    usual = taken(canary(10))
    for other in (taken(canary(10, number=3)), taken(canary(10), "agt_2")):
        assert len(usual & other) < 0.3 * len(usual)
    assert takes("agt_1", canary(50), Unit("session", "x")) != takes("agt_1", canary(50), Unit("project", "x"))


@pytest.mark.parametrize(
    "bounds",
    [
        [Bound(metric=Metric.SUCCESS_RATE)],
        [Bound(metric=Metric.SUCCESS_RATE, relative=0.1, absolute=0.5)],
        [Bound(metric=Metric.SUCCESS_RATE, relative=1.1)],
        [Bound(metric=Metric.EXCUSED_RATE, absolute=1.5)],
        [Bound(metric=Metric.COST_USD_P50, relative=0.5)],
        [Bound(metric=Metric.COST_USD_P50, absolute=-1.0)],
        [Bound(metric=Metric.COST_USD_P50, relative=2.0)] * 2,
    ],
)
def test_what_can_be_no_bound_is_refused_with_its_place(bounds: list[Bound]) -> None:
    good = Bound(metric=Metric.DURATION_SECONDS_P95, absolute=900.0)
    with pytest.raises(InvalidInput) as refused:
        check_bounds((good, *bounds))
    assert refused.value.code == "unsupported_bound"
    assert check_bounds((good, *DEFAULT_BOUNDS)) == (good, *DEFAULT_BOUNDS)
