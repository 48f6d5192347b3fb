"""Periods, and whether there is room for one more run."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from codeagent import clock
from codeagent.budgets.budget import (
    ALWAYS,
    Action,
    Budget,
    BudgetScope,
    Period,
    Standing,
    Unit,
    began_on,
    resets_at,
)


@pytest.mark.parametrize(
    ("period", "today", "began", "resets"),
    [
        (Period.DAY, date(2028, 2, 29), date(2028, 2, 29), datetime(2028, 3, 1, tzinfo=UTC)),
        (Period.MONTH, date(2026, 12, 31), date(2026, 12, 1), datetime(2027, 1, 1, tzinfo=UTC)),
        (Period.MONTH, date(2027, 2, 1), date(2027, 2, 1), datetime(2027, 3, 1, tzinfo=UTC)),
        (Period.TOTAL, date(2026, 12, 31), ALWAYS, None),
    ],
)
def test_a_period_begins_and_ends_in_utc(period: Period, today: date, began: date, resets: datetime | None) -> None:
    assert (began_on(period, today), resets_at(period, today)) == (began, resets)


def standing(
    amount: str, spent: str, reserved: str = "0", unit: Unit = Unit.USD, scope: BudgetScope = BudgetScope.TENANT
) -> Standing:
    scope_id = None if scope is BudgetScope.TENANT else "one"
    now = clock.now()
    budget = Budget(
        "bud_1", "ten_1", 1, "b", scope, scope_id, Period.DAY, unit, Decimal(amount), Action.REFUSE, "f", now, now
    )
    return Standing(budget, Decimal(spent), Decimal(reserved))


@pytest.mark.parametrize(
    ("of", "max_cost_usd", "room"),
    [
        (standing("10", "9.99"), None, True),
        (standing("10", "10"), None, False),
        (standing("10", "12"), None, False),
        (standing("10", "4", "6"), None, False),
        (standing("10", "4", "3"), "3", True),
        (standing("10", "4", "3"), "3.01", False),
        (standing("1000", "999", unit=Unit.TOKENS), "5", True),
        (standing("1000", "1000", unit=Unit.TOKENS), None, False),
    ],
)
def test_a_run_begins_where_something_is_left_and_as_much_as_it_may_spend(
    of: Standing, max_cost_usd: str | None, room: bool
) -> None:
    assert of.has_room_for(None if max_cost_usd is None else Decimal(max_cost_usd)) is room


def test_a_budget_concerns_those_that_it_names() -> None:
    asked = [("one", None), ("other", "one"), ("other", None)]
    concerned = {
        scope: [standing("1", "0", scope=scope).concerns(principal, project) for principal, project in asked]
        for scope in BudgetScope
    }
    assert concerned == {
        BudgetScope.TENANT: [True, True, True],
        BudgetScope.PRINCIPAL: [True, False, False],
        BudgetScope.PROJECT: [False, True, False],
    }
