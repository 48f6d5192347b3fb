"""`/v1/agents/{agent_id}/canary`: have some runs try a version before all are given it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response

from codeagent.edge.agent_models import AgentModel
from codeagent.edge.agent_versions import CHANGES, Number, changed, to_change
from codeagent.edge.answers import answer
from codeagent.edge.authors import author_of
from codeagent.edge.canary_models import CanaryBody, CanaryModel
from codeagent.edge.context import AgentReader, AgentWriter, Context
from codeagent.edge.parameters import IfMatch
from codeagent.edge.problems import errors_of
from codeagent.errors import NotFound
from codeagent.projections.canaries import canary_runs
from codeagent.projections.verdicts import CHANCE, weigh

router = APIRouter(prefix="/v1/agents/{agent_id}", tags=["agents"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "/versions/{number}/canary", response_model=AgentModel, summary="Begin a canary of a version", responses=CHANGES
)
async def start_canary(
    agent_id: str, number: Number, body: CanaryBody, context: Context, caller: AgentWriter, if_match: IfMatch = None
) -> Response:
    """Within a second some of the new runs that name no version are given this one, the others the active one: all of a
    session the same, else all of a project, else all of who submits them. It takes the place of a canary that runs.

    It is rolled back by itself once its runs have broken one of its bounds. A version that keeps them is rolled back
    with a chance of 1 % at most, over the whole canary."""
    plan = body.plan()
    agent = await to_change(context, caller, agent_id, if_match)
    return await changed(context, caller, context.agents.canaries.start(author_of(caller), agent, number, plan))


@router.post("/canary/stop", response_model=AgentModel, summary="Stop a canary", responses=CHANGES)
async def stop_canary(agent_id: str, context: Context, caller: AgentWriter, if_match: IfMatch = None) -> Response:
    """New runs are given the active version again. That of the canary becomes deprecated."""
    agent = await to_change(context, caller, agent_id, if_match)
    return await changed(context, caller, context.agents.canaries.stop(author_of(caller), agent))


@router.get("/canary", response_model=CanaryModel, summary="The canary that runs, and how it does")
async def get_canary(agent_id: str, context: Context, caller: AgentReader) -> Response:
    """Its figures beside those of the active version's runs meanwhile, and what they say about each bound: `chance` is
    that of as much evidence, ever in a canary, had every bound been kept."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    canary, active = agent.canary, agent.active_version
    if canary is None or active is None:
        raise NotFound("No canary of the agent is running.")
    runs = await canary_runs(context.database, caller.tenant_id, agent.name, canary.began)
    held = await asyncio.to_thread(weigh, canary.plan, runs)
    return answer(CanaryModel.of(canary, active, CHANCE, held))
