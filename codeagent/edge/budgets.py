"""`/v1/budgets`: what a tenant lets itself spend."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from codeagent.budgets.budget import Budget, BudgetChange, BudgetOrder, Standing, Unit
from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.budget_models import BudgetBody, BudgetModel, BudgetPage, BudgetPatch
from codeagent.edge.context import BudgetWriter, Context, UsageReader
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.errors import InvalidInput
from codeagent.messages.ids import derived_uuid, typed_id

router = APIRouter(prefix="/v1/budgets", tags=["budgets"], responses=errors_of(400, 401, 403, 404, 422, 503))


def _answer(standing: Standing) -> Response:
    return answer(BudgetModel.of(standing), version=standing.budget.version)


@router.post(
    "",
    status_code=201,
    response_model=BudgetModel,
    summary="Make a budget",
    responses={
        200: {"model": BudgetModel, "description": "A repeat: the budget was made before."},
        **errors_of(409),
    },
)
async def create_budget(
    body: BudgetBody,
    context: Context,
    caller: BudgetWriter,
    key: RequestKey = None,
) -> Response:
    """It holds at once on this edge, and within five seconds on all others. What was spent in the period before it was
    made counts."""
    repeat = idempotency_key(key)
    order = BudgetOrder(
        id=typed_id("bud", derived_uuid(caller.tenant_id, caller.id, "POST /v1/budgets", repeat)),
        name=body.name,
        scope=body.scope,
        scope_id=body.scope_id,
        period=body.period,
        unit=body.unit,
        amount=body.limit,
        action=body.action,
        fingerprint=body.fingerprint(),
    )
    repeated = (await context.budgets.create(author_of(caller), order)).repeated
    standing = await context.budgets.find(caller.tenant_id, order.id)
    model, location = BudgetModel.of(standing), f"/v1/budgets/{order.id}"
    return made(model, location, repeated=repeated, version=standing.budget.version)


@router.get("", response_model=BudgetPage, summary="List budgets, newest first")
async def list_budgets(
    context: Context,
    caller: UsageReader,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Each with what is spent, reserved and left in the period that it is in now."""
    found, following = await context.budgets.page(caller.tenant_id, after=cursor, limit=limit)
    page = BudgetPage(items=[BudgetModel.of(standing) for standing in found], next_cursor=following)
    return page_answer(page, "/v1/budgets", limit=limit, cursor=following)


@router.get("/{budget_id}", response_model=BudgetModel, summary="A budget, and what is left of it")
async def get_budget(budget_id: str, context: Context, caller: UsageReader) -> Response:
    """With the ETag that changing it takes, which the amounts do not change: they follow the log with a short delay."""
    return _answer(await context.budgets.find(caller.tenant_id, budget_id))


@router.patch("/{budget_id}", response_model=BudgetModel, summary="Change a budget", responses=errors_of(412, 428))
async def change_budget(
    budget_id: str, body: BudgetPatch, context: Context, caller: BudgetWriter, if_match: IfMatch = None
) -> Response:
    """Its name, limit or action; without any it stays at its version. With another limit its thresholds are told of
    anew."""
    standing = await context.budgets.find(caller.tenant_id, budget_id)
    budget, wanted = standing.budget, BudgetChange(body.name, body.limit, body.action)
    check_match(if_match, budget.version)
    _check_limit(budget, body)
    if wanted == BudgetChange():
        return _answer(standing)
    await context.budgets.change(author_of(caller), budget, wanted)
    return _answer(await context.budgets.find(caller.tenant_id, budget_id))


def _check_limit(budget: Budget, body: BudgetPatch) -> None:
    if body.limit is not None and budget.unit is Unit.TOKENS and body.limit != int(body.limit):
        raise InvalidInput("A limit in tokens is a whole number.", pointer="/limit")


@router.delete("/{budget_id}", status_code=204, summary="Delete a budget", responses=errors_of(412, 428))
async def delete_budget(budget_id: str, context: Context, caller: BudgetWriter, if_match: IfMatch = None) -> Response:
    """What it limited is no longer limited by it. What was used stays in `/v1/usage`."""
    budget = (await context.budgets.find(caller.tenant_id, budget_id)).budget
    check_match(if_match, budget.version)
    await context.budgets.delete(author_of(caller), budget)
    return Response(status_code=204)
