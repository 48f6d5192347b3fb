"""Thresholds are told of once a period, by whoever looks first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

import pytest

from codeagent import clock
from codeagent.budgets.budget import Action, Budget, BudgetChange, BudgetOrder, BudgetScope, Period, Unit
from codeagent.budgets.registry import Budgets
from codeagent.budgets.thresholds import announce_thresholds
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.ids import budget_notice_stream, typed_id
from tests.integration.projections.logs import TENANT

DAY = date(2026, 11, 23)
BY = Author(TENANT, "app_user", "usr_1", clock.new_uuid())


@pytest.fixture
async def budgets(newest_database_url: str) -> AsyncIterator[Budgets]:
    walled = Database(newest_database_url, connections=2, role=EDGE_ROLE)
    yield Budgets(walled)
    await walled.close()


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    database = Database(newest_database_url, connections=4)
    yield database
    await database.close()


async def make(budgets: Budgets, period: Period = Period.MONTH, action: Action = Action.WARN) -> Budget:
    order = BudgetOrder(
        typed_id("bud", clock.new_uuid()), "b", BudgetScope.TENANT, None, period, Unit.USD, Decimal(10), action, "f"
    )
    return (await budgets.create(BY, order)).budget


async def spend(database: Database, usd: str, day: date = DAY, tenant_id: str = TENANT) -> None:
    await database.write(
        """INSERT INTO usage_by_day AS u (tenant_id, day, model, principal_id, cost_usd) VALUES ($1, $2, 'm', 'usr_1', $3)
           ON CONFLICT ON CONSTRAINT usage_by_day_key DO UPDATE SET cost_usd = u.cost_usd + excluded.cost_usd""",
        tenant_id,
        day,
        Decimal(usd),
    )


async def notices(database: Database, budget: Budget) -> list[StoredEvent]:
    return list(await EventLog(database).read_stream(budget_notice_stream(budget.id)))


async def test_each_threshold_is_told_of_once_in_each_period(budgets: Budgets, owner: Database) -> None:
    budget = await make(budgets)
    told = []
    for usd in ("7.99", "0.01", "1", "1.50", "5"):
        await spend(owner, usd)
        told.append(await announce_thresholds(owner, DAY))
    assert told == [0, 1, 0, 1, 0]
    await spend(owner, "99", date(2026, 12, 1))
    assert await announce_thresholds(owner, date(2026, 12, 2)) == 2, "both at once"
    facts = [event.document() for event in await notices(owner, budget)]
    assert [(fact["percent"], fact["period_start"]) for fact in facts] == [
        (80, "2026-11-01"),
        (100, "2026-11-01"),
        (80, "2026-12-01"),
        (100, "2026-12-01"),
    ]
    assert (facts[0]["spent"], facts[1]["spent"]) == ("8.00", "10.50")
    [stored, *_] = await notices(owner, budget)
    assert (stored.tenant_id, stored.metadata["authtype"]) == (TENANT, "system")
    assert (await budgets.find(TENANT, budget.id)).budget.version == 1, "nobody's ETag is spoilt"


async def test_many_who_look_at_once_tell_of_it_once(budgets: Budgets, owner: Database) -> None:
    budget = await make(budgets)
    await spend(owner, "8.50")
    assert sum(await asyncio.gather(*(announce_thresholds(owner, DAY) for _ in range(4)))) == 1
    assert len(await notices(owner, budget)) == 1


async def test_another_limit_is_told_of_anew(budgets: Budgets, owner: Database) -> None:
    budget = await make(budgets, Period.TOTAL, Action.REFUSE)
    await spend(owner, "9", date(2020, 1, 1))
    assert await announce_thresholds(owner, DAY) == 1
    renamed = await budgets.change(BY, budget, BudgetChange(name="other"))
    assert await announce_thresholds(owner, DAY) == 0
    raised = await budgets.change(BY, renamed, BudgetChange(amount=Decimal(11)))
    assert await announce_thresholds(owner, DAY) == 1
    await budgets.delete(BY, raised)
    assert await announce_thresholds(owner, DAY) == 0
    assert [event.document()["period_start"] for event in await notices(owner, budget)] == [None, None]


async def test_what_another_tenant_spends_is_not_counted(budgets: Budgets, owner: Database) -> None:
    await make(budgets)
    await spend(owner, "100", tenant_id="ten_other")
    assert await announce_thresholds(owner, DAY) == 0
