"""Bodies of requests and answers about budgets."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from codeagent.budgets.budget import Action, BudgetScope, Period, Standing, Unit, resets_at
from codeagent.budgets.standings import today
from codeagent.edge.amounts import Amount
from codeagent.edge.models import Strict

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["nightly builds"])]
Limit = Annotated[
    Decimal, Amount(most=1_000_000_000_000, places=6), Field(description="In `unit`.", examples=["100.00"])
]
Doing = Annotated[Action, Field(description="`refuse` new runs once it is spent, or `warn` and let them work.")]


class BudgetBody(Strict):
    """A budget to make: at most `limit` of `unit` a `period`."""

    name: Name
    scope: BudgetScope = Field(default=BudgetScope.TENANT, description="Whose spending it limits.")
    scope_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Id of the project or principal; an API key spends as its principal.",
    )
    period: Period = Field(description="Days and months are those of UTC; `total` never ends.")
    unit: Unit = Field(description="`tokens` are those of input and output together.")
    limit: Limit
    action: Doing = Action.REFUSE

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.scope is BudgetScope.TENANT) != (self.scope_id is None):
            raise ValueError("scope_id names a project or a principal, and nothing else")
        if self.unit is Unit.TOKENS and self.limit != int(self.limit):
            raise ValueError("a limit in tokens is a whole number")
        return self

    def fingerprint(self) -> str:
        return sha256(self.model_dump_json().encode()).hexdigest()


class BudgetPatch(Strict):
    """What is left out stays. Whose spending it limits, its period and its unit cannot be changed."""

    name: Name | None = None
    limit: Limit | None = None
    action: Doing | None = None


class BudgetModel(BaseModel):
    """A budget in its period. Amounts are in `unit`; `resets_at` is null where the period never ends."""

    id: str
    name: str
    scope: BudgetScope
    scope_id: str | None
    period: Period
    unit: Unit
    limit: str
    action: Action
    spent: str = Field(description="By calls that have ended.")
    reserved: str = Field(description="What open runs may still spend by limits of their own.")
    remaining: str
    resets_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, standing: Standing) -> BudgetModel:
        budget = standing.budget
        return cls(
            id=budget.id,
            name=budget.name,
            scope=budget.scope,
            scope_id=budget.scope_id,
            period=budget.period,
            unit=budget.unit,
            limit=_amount(budget.amount),
            action=budget.action,
            spent=_amount(standing.spent),
            reserved=_amount(standing.reserved),
            remaining=_amount(standing.remaining),
            resets_at=resets_at(budget.period, today()),
            version=budget.version,
            created_at=budget.created_at.astimezone(UTC),
            updated_at=budget.updated_at.astimezone(UTC),
        )


def _amount(value: Decimal) -> str:
    return f"{value:f}"


class BudgetPage(BaseModel):
    """Budgets, newest first. `next_cursor` continues the list; null at its end."""

    items: list[BudgetModel]
    next_cursor: str | None
