"""Budgets as rows, each change of one written together with its fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.budgets.budget import COLUMNS, Budget, BudgetChange, BudgetOrder, Standing, budget_of
from codeagent.budgets.gate import BudgetGate
from codeagent.budgets.standings import standings
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, NotFound, Rejected
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, Change, ControlPlane, check_repeat
from codeagent.messages.budget_events import BudgetChanged, BudgetCreated, BudgetDeleted
from codeagent.messages.ids import budget_stream, parse_typed_id

NONE_SUCH = "There is no such budget."
MOST = 100
"""Budgets of a tenant."""


@dataclass(frozen=True, slots=True)
class MadeBudget:
    """`repeated`: an earlier request under the same key had made it."""

    budget: Budget
    repeated: bool


class Budgets:
    """`database` works under the edge's role. `gate` holds new runs to them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self.gate = BudgetGate(database)

    async def create(self, author: Author, order: BudgetOrder) -> MadeBudget:
        """Raises `InvalidInput` for an id that stands for another request, `Rejected` where there are too many, or
        where the budget that the id stands for has been deleted."""
        if (before := await self._made_before(author.tenant_id, order)) is not None:
            return MadeBudget(before, repeated=True)
        try:
            async with self._control.change(author) as change:
                await _assert_room(change, author.tenant_id)
                row = await self._insert(change, author.tenant_id, order)
        except Conflict:
            # Another request made it meanwhile, or an earlier one did and it has been deleted since.
            if (before := await self._made_before(author.tenant_id, order)) is not None:
                return MadeBudget(before, repeated=True)
            detail = "The budget that this Idempotency-Key made has been deleted."
            raise Rejected(detail, code="conflict", status=409) from None
        self.gate.forget(author.tenant_id)
        return MadeBudget(budget_of(row), repeated=False)

    async def _made_before(self, tenant_id: str, order: BudgetOrder) -> Budget | None:
        try:
            budget = (await self.find(tenant_id, order.id)).budget
        except NotFound:
            return None
        check_repeat(budget.fingerprint, order.fingerprint)
        return budget

    async def _insert(self, change: Change, tenant_id: str, order: BudgetOrder) -> Row:
        row = await change.row(
            f"""INSERT INTO budgets (id, tenant_id, version, name, scope, scope_id, period, unit, amount, action,
                                     fingerprint)
                VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {COLUMNS}""",  # noqa: S608  constants
            order.id,
            tenant_id,
            order.name,
            order.scope.value,
            order.scope_id,
            order.period.value,
            order.unit.value,
            order.amount,
            order.action.value,
            order.fingerprint,
        )
        fact = BudgetCreated(
            budget_id=order.id,
            name=order.name,
            scope=order.scope.value,
            scope_id=order.scope_id,
            period=order.period.value,
            unit=order.unit.value,
            limit=order.amount,
            action=order.action.value,
        )
        await change.record(budget_stream(order.id), 1, fact)
        return row

    async def find(self, tenant_id: str, budget_id: str) -> Standing:
        """Raises `NotFound`, also for another tenant's budget."""
        if parse_typed_id("bud", budget_id) is None:
            raise NotFound(NONE_SUCH)
        found = await standings(self._database, tenant_id, "WHERE b.id = $3", budget_id)
        if not found:
            raise NotFound(NONE_SUCH)
        return found[0]

    async def page(self, tenant_id: str, *, after: str | None, limit: int) -> tuple[Sequence[Standing], str | None]:
        """Budgets, newest first, and the next page's cursor. Raises `Rejected` for a cursor that is none."""
        created_at, budget_id = parse_time_cursor("bud", after)
        found = await standings(
            self._database,
            tenant_id,
            """WHERE $3::timestamptz IS NULL OR (b.created_at, b.id) < ($3, $4)
               ORDER BY b.created_at DESC, b.id DESC LIMIT $5""",
            created_at,
            budget_id,
            limit + 1,
        )
        return page_of(found, limit, lambda each: format_time_cursor(each.budget.created_at, each.budget.id))

    async def change(self, author: Author, budget: Budget, wanted: BudgetChange) -> Budget:
        """Raises `VersionMismatch` where it has changed since it was read. Another limit has its thresholds told of
        anew."""
        async with self._control.change(author) as change:
            row = await change.row(
                f"""UPDATE budgets SET name = coalesce($3, name), amount = coalesce($4, amount),
                           action = coalesce($5, action), version = version + 1, updated_at = clock_timestamp(),
                           noticed_percent = CASE WHEN amount = coalesce($4, amount) THEN noticed_percent ELSE 0 END
                    WHERE id = $1 AND version = $2 RETURNING {COLUMNS}""",  # noqa: S608  constants
                budget.id,
                budget.version,
                wanted.name,
                wanted.amount,
                None if wanted.action is None else wanted.action.value,
            )
            changed = budget_of(row)
            fact = BudgetChanged(
                budget_id=changed.id, name=changed.name, limit=changed.amount, action=changed.action.value
            )
            await change.record(budget_stream(changed.id), changed.version, fact)
        self.gate.forget(author.tenant_id)
        return changed

    async def delete(self, author: Author, budget: Budget) -> None:
        """Raises `VersionMismatch` where it has changed since it was read."""
        async with self._control.change(author) as change:
            statement = "DELETE FROM budgets WHERE id = $1 AND version = $2 RETURNING id"
            await change.row(statement, budget.id, budget.version)
            fact = BudgetDeleted(budget_id=budget.id)
            await change.record(budget_stream(budget.id), budget.version + 1, fact)
        self.gate.forget(author.tenant_id)


async def _assert_room(change: Change, tenant_id: str) -> None:
    # Held to the end of the transaction: two that come at once are counted one after the other.
    await change.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"budgets/{tenant_id}")
    [row] = await change.rows("SELECT count(*) FROM budgets")
    if row[0] >= MOST:
        raise Rejected(f"There are {MOST} budgets already.", code="limit_reached", status=409)
