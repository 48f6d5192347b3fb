"""`/v1/agents/{agent_id}/stats`: what the runs of an agent's versions came to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from codeagent.agent_registry.versions import parse_version_cursor
from codeagent.edge.agent_statistics_models import AgentStatisticsPage, VersionStatisticsModel
from codeagent.edge.context import AgentReader, Context
from codeagent.edge.days import day_range
from codeagent.edge.moments import Day
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.problems import errors_of
from codeagent.projections.agent_statistics import VersionQuery, version_statistics

router = APIRouter(prefix="/v1/agents/{agent_id}", tags=["agents"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.get("/stats", response_model=AgentStatisticsPage, summary="How an agent's versions do")
async def get_agent_stats(
    agent_id: str,
    context: Context,
    caller: AgentReader,
    version: Annotated[int | None, Query(ge=1, lt=2**31, description="Only this version.")] = None,
    since: Annotated[Day | None, Query(description="First day, of UTC; 29 before the last one.")] = None,
    until: Annotated[Day | None, Query(description="Last day, of UTC and included; today.")] = None,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Of each version that had runs submitted on these days, 400 at most: how many succeeded, what they used, how long
    they took. The figures follow the log with a short delay."""
    first, last = day_range(since, until, ("since", "until"))
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    if version is not None:
        await context.agents.versions.find(caller.tenant_id, agent, version)
    before = None if cursor is None else parse_version_cursor(cursor)
    query = VersionQuery(agent.name, first, last, version, before)
    found = await version_statistics(context.database, caller.tenant_id, query, limit + 1)
    items = [VersionStatisticsModel.of(each) for each in found[:limit]]
    following = str(items[-1].version) if len(found) > limit else None
    page = AgentStatisticsPage(
        agent_id=agent.id, agent=agent.name, since=first, until=last, items=items, next_cursor=following
    )
    path = f"/v1/agents/{agent.id}/stats"
    return page_answer(page, path, since=first, until=last, limit=limit, cursor=following)
