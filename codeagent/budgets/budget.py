"""A budget: a limit on what a tenant, a project or a principal spends in a period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from codeagent.eventlog.database import Row


class BudgetScope(StrEnum):
    """Whose spending it limits."""

    TENANT = "tenant"
    PROJECT = "project"
    PRINCIPAL = "principal"


class Period(StrEnum):
    """How long a limit is for, in UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class Unit(StrEnum):
    """`tokens` are those of input and output together."""

    USD = "usd"
    TOKENS = "tokens"


class Action(StrEnum):
    """What happens when it is spent: new runs are refused, or somebody is told."""

    REFUSE = "refuse"
    WARN = "warn"


ALWAYS = date(1970, 1, 1)
"""The begin of all of time."""
COLUMNS = """id, tenant_id, version, name, scope, scope_id, period, unit, amount, action, fingerprint, created_at,
    updated_at"""


@dataclass(frozen=True, slots=True)
class Budget:
    """`amount` is the limit, in `unit`."""

    id: str
    tenant_id: str
    version: int
    name: str
    scope: BudgetScope
    scope_id: str | None
    period: Period
    unit: Unit
    amount: Decimal
    action: Action
    fingerprint: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BudgetOrder:
    """A budget to make, and the digest of the request for it."""

    id: str
    name: str
    scope: BudgetScope
    scope_id: str | None
    period: Period
    unit: Unit
    amount: Decimal
    action: Action
    fingerprint: str


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """What is None stays."""

    name: str | None = None
    amount: Decimal | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget in its period: what is `spent`, and what open runs may still spend by limits of their own."""

    budget: Budget
    spent: Decimal
    reserved: Decimal

    @property
    def remaining(self) -> Decimal:
        return max(self.budget.amount - self.spent - self.reserved, Decimal(0))

    def concerns(self, principal_id: str, project_id: str | None) -> bool:
        match self.budget.scope:
            case BudgetScope.TENANT:
                return True
            case BudgetScope.PROJECT:
                return self.budget.scope_id == project_id
            case BudgetScope.PRINCIPAL:
                return self.budget.scope_id == principal_id

    def has_room_for(self, max_cost_usd: Decimal | None) -> bool:
        """Whether one more run may begin: something is left, and as much as the run may spend by its own limit."""
        wanted = max_cost_usd if max_cost_usd is not None and self.budget.unit is Unit.USD else Decimal(0)
        return self.remaining > 0 and wanted <= self.remaining


def began_on(period: Period, today: date) -> date:
    """The first day of the period that `today` is in."""
    match period:
        case Period.DAY:
            return today
        case Period.MONTH:
            return today.replace(day=1)
        case Period.TOTAL:
            return ALWAYS


def resets_at(period: Period, today: date) -> datetime | None:
    """When the next period begins; None where there is none."""
    match period:
        case Period.DAY:
            following = today + timedelta(days=1)
        case Period.MONTH:
            following = (today.replace(day=28) + timedelta(days=4)).replace(day=1)
        case Period.TOTAL:
            return None
    return datetime(following.year, following.month, following.day, tzinfo=UTC)


def budget_of(row: Row) -> Budget:
    values = {name.strip(): row[name.strip()] for name in COLUMNS.split(",")}
    values["scope"], values["period"] = BudgetScope(values["scope"]), Period(values["period"])
    values["unit"], values["action"] = Unit(values["unit"]), Action(values["action"])
    return Budget(**values)
