"""`/v1/usage` and `/v1/runs/{id}/usage`: what has been used, and what it cost."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from codeagent.edge.answers import PRIVATE, answer
from codeagent.edge.context import Context, UsageReader
from codeagent.edge.days import day_range
from codeagent.edge.pages import next_link
from codeagent.edge.problems import errors_of
from codeagent.edge.usage_models import RunUsageModel, UsagePage, UsageParameters
from codeagent.projections.usage_report import UsageQuery, usage_of_run, usage_report

router = APIRouter(prefix="/v1", tags=["usage"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.get("/usage", response_model=UsagePage, summary="What has been used, added up")
async def get_usage(context: Context, caller: UsageReader, asked: Annotated[UsageParameters, Query()]) -> Response:
    """Calls, tokens, cost, sandbox time and runs of the tenant, by days of UTC.

    A call counts on the day it ended, a run on those it was submitted and ended. The sums follow the log with a short
    delay. The range has 400 days at most.
    """
    query = UsageQuery(
        *day_range(asked.first_day, asked.last_day, ("from", "to")),
        tuple(dict.fromkeys(asked.group_by)),
        asked.model,
        asked.project_id,
        asked.session_id,
        asked.principal_id,
    )
    report = await usage_report(context.database, caller.tenant_id, query, after=asked.cursor, limit=asked.limit)
    headers = {"Cache-Control": PRIVATE}
    if report.next_cursor is not None:
        # The days as they were meant: tomorrow the next page is to be one of the same list.
        days = {"from": query.first, "to": query.last}
        same = {**asked.model_dump(mode="json", by_alias=True), **days, "cursor": report.next_cursor}
        headers["Link"] = next_link("/v1/usage", **same)
    page = UsagePage.of(query, report)
    return Response(page.model_dump_json(by_alias=True), headers=headers, media_type="application/json")


@router.get("/runs/{run_id}/usage", response_model=RunUsageModel, summary="What a run has used")
async def get_run_usage(run_id: str, context: Context, caller: UsageReader) -> Response:
    """By model, with the run's totals. While it works the numbers follow it with a short delay."""
    view = await context.views.get(caller.tenant_id, run_id)
    usage = await usage_of_run(context.database, caller.tenant_id, view.run_id)
    return answer(RunUsageModel.of(run_id, usage))
