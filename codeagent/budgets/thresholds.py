"""Telling of budgets that are nearly or wholly spent: once a threshold and period, as a fact of the tenant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from codeagent.budgets.budget import Period, Standing, began_on
from codeagent.budgets.standings import STANDINGS, standing_of, today
from codeagent.clock import new_uuid
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.budget_events import BudgetThresholdReached
from codeagent.messages.ids import budget_notice_stream

THRESHOLDS = (80, 100)
"""In percent of the limit, from the lowest to the highest."""


async def announce_thresholds(database: Database, day: date | None = None) -> int:
    """Writes the facts that are due, of all tenants; returns how many. `database` sees all tenants. Any number may do
    this at once: the row's lock lets one write each fact."""
    day = day or today()
    rows = await database.fetch(STANDINGS, day, began_on(Period.MONTH, day))
    told = 0
    for row in rows:
        for percent in _due(row, day):
            told += await _announce(database, standing_of(row), percent, day)
    return told


def _due(row: Row, day: date) -> Sequence[int]:
    """Thresholds that have been reached and not told of in this period."""
    told = row["noticed_percent"] if row["noticed_from"] == began_on(Period(row["period"]), day) else 0
    reached = row["spent"] * 100 / row["amount"]
    return [percent for percent in THRESHOLDS if told < percent <= reached]


async def _announce(database: Database, standing: Standing, percent: int, day: date) -> bool:
    budget = standing.budget
    began = began_on(budget.period, day)
    author = Author(budget.tenant_id, "system", "budgets", new_uuid())
    async with ControlPlane(database).change(author) as change:
        # Not at another version: with another limit it may not have been reached.
        rows = await change.rows(
            """UPDATE budgets SET noticed_from = $3, noticed_percent = $4, notices = notices + 1
               WHERE id = $1 AND version = $2
                     AND (noticed_from IS DISTINCT FROM $3 OR noticed_percent < $4) RETURNING notices""",
            budget.id,
            budget.version,
            began,
            percent,
        )
        if not rows:
            return False
        fact = BudgetThresholdReached(
            budget_id=budget.id,
            name=budget.name,
            scope=budget.scope.value,
            scope_id=budget.scope_id,
            period=budget.period.value,
            period_start=None if budget.period is Period.TOTAL else began,
            percent=percent,
            unit=budget.unit.value,
            limit=budget.amount,
            spent=standing.spent,
            action=budget.action.value,
        )
        await change.record(budget_notice_stream(budget.id), rows[0]["notices"], fact)
    return True
