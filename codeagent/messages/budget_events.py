"""What happens to a budget: the stream `budget-<id>`, written with its row; thresholds on `budget_notices-<id>`."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from codeagent.messages.envelope import Event
from codeagent.messages.personal import OfTenant


class BudgetCreated(Event):
    """`limit` is in `unit`; `scope_id` None where the whole tenant is meant."""

    NAME: ClassVar[str] = "budget.created"

    budget_id: str
    name: Annotated[str, OfTenant("telling budgets apart", "what the user wrote")]
    scope: Literal["tenant", "project", "principal"]
    scope_id: str | None = None
    period: Literal["day", "month", "total"]
    unit: Literal["usd", "tokens"]
    limit: Decimal
    action: Literal["refuse", "warn"]


class BudgetChanged(Event):
    """What may change, as it is now."""

    NAME: ClassVar[str] = "budget.changed"

    budget_id: str
    name: Annotated[str, OfTenant("telling budgets apart", "what the user wrote")]
    limit: Decimal
    action: Literal["refuse", "warn"]


class BudgetDeleted(Event):
    NAME: ClassVar[str] = "budget.deleted"

    budget_id: str


class BudgetThresholdReached(Event):
    """`percent` of the limit has been spent, for the first time in the period. `period_start` is a day of UTC, None
    where the period is all of time."""

    NAME: ClassVar[str] = "budget.threshold_reached"

    budget_id: str
    name: Annotated[str, OfTenant("telling budgets apart", "what the user wrote")]
    scope: Literal["tenant", "project", "principal"]
    scope_id: str | None = None
    period: Literal["day", "month", "total"]
    period_start: date | None = None
    percent: int
    unit: Literal["usd", "tokens"]
    limit: Decimal
    spent: Decimal
    action: Literal["refuse", "warn"]
