"""Whether a tenant's budgets let one more run begin."""

from __future__ import annotations

import time
from decimal import Decimal

from codeagent.budgets.budget import Standing, resets_at
from codeagent.budgets.standings import standings, today
from codeagent.errors import Rejected
from codeagent.eventlog.database import Database
from codeagent.telemetry import metrics

MOST_REMEMBERED = 100_000


class BudgetExhausted(Rejected):
    """Not to be tried again before the period ends or somebody changes the budget."""

    code = "budget_exhausted"
    status = 403


class BudgetGate:
    """Asks the database for each run of a tenant that has budgets which refuse. That a tenant has none is remembered
    for `remembered_seconds`: a budget made on another edge holds here after that time at the latest."""

    def __init__(self, database: Database, *, remembered_seconds: float = 5.0) -> None:
        self._database = database
        self._remembered = remembered_seconds
        self._free: dict[str, float] = {}
        """Tenants without such budgets, and until when that is believed."""

    async def admit(
        self, tenant_id: str, principal_id: str, project_id: str | None, max_cost_usd: Decimal | None
    ) -> None:
        """Raises `BudgetExhausted` where a run of this principal, with this limit on its cost, is not to begin."""
        now = time.monotonic()
        if self._free.get(tenant_id, 0.0) > now:
            return
        found = await standings(self._database, tenant_id, "WHERE b.action = 'refuse' ORDER BY b.id")
        if not found:
            if len(self._free) >= MOST_REMEMBERED:
                self._free.clear()
            self._free[tenant_id] = now + self._remembered
            return
        for standing in found:
            if standing.concerns(principal_id, project_id) and not standing.has_room_for(max_cost_usd):
                metrics.BUDGET_REFUSALS.inc()
                raise _exhausted(standing)

    def forget(self, tenant_id: str) -> None:
        """Its budgets have changed, and are looked at anew."""
        self._free.pop(tenant_id, None)


def _exhausted(standing: Standing) -> BudgetExhausted:
    budget = standing.budget
    ends = resets_at(budget.period, today())
    told = [
        f"Budget {budget.id} has {standing.remaining:f} of {budget.amount:f} {budget.unit} left, and a run like this "
        "might spend more."
    ]
    if ends is not None:
        told.append(f"It begins anew at {ends:%Y-%m-%dT%H:%M:%SZ}.")
    return BudgetExhausted(" ".join(told))
