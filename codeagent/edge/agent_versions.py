"""`/v1/agents/{agent_id}/versions`: make versions of an agent, and decide which one new runs are given."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from codeagent.agent_registry.agent import Agent, check_hosts
from codeagent.agent_registry.mcp_tools import check_listed
from codeagent.edge.accept import idempotency_key
from codeagent.edge.agent_models import AgentModel, AgentVersionModel, AgentVersionPage, VersionBody
from codeagent.edge.agents import agent_response
from codeagent.edge.answers import answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import AgentReader, AgentWriter, Context, EdgeContext
from codeagent.edge.delegates import check_delegates
from codeagent.edge.model_choice import check_fallbacks, check_model
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.identity.principal import Principal
from codeagent.messages.ids import derived_uuid, typed_id

router = APIRouter(prefix="/v1/agents/{agent_id}", tags=["agents"], responses=errors_of(400, 401, 403, 404, 422, 503))

Number = Annotated[int, Path(ge=1, lt=2**31, description="The version's number.")]
CHANGES = errors_of(409, 412, 428)


@router.post(
    "/versions",
    status_code=201,
    response_model=AgentVersionModel,
    summary="Make a version of an agent",
    responses={
        200: {"model": AgentVersionModel, "description": "A repeat: the version was made before."},
        409: {"description": "The agent is archived, or built in (`invalid_state_transition`)."},
    },
)
async def create_version(
    agent_id: str, body: VersionBody, context: Context, caller: AgentWriter, key: RequestKey = None
) -> Response:
    """The next number, as a draft: a run that names it (`name@number`) can try it, and no other run is given it."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    content, versions = body.content(), context.agents.versions
    route = f"POST /v1/agents/{agent.id}/versions"
    order_id = typed_id("agv", derived_uuid(caller.tenant_id, caller.id, route, idempotency_key(key)))
    # First: what was made once is a repeat, whatever has become of the agent or the model since.
    version, repeated = await versions.made_before(caller.tenant_id, order_id, content), True
    if version is None:
        context.policy.limits.check(body.limits)
        if body.model is not None:
            check_model(context, body.model)
        check_fallbacks(context, body.fallbacks)
        check_hosts(content.egress, context.policy.egress_hosts)
        check_listed(content.mcp, context.policy.mcp_servers_of(caller.tenant_id))
        await check_delegates(context, caller, agent.name, content)
        version, repeated = await versions.create(author_of(caller), agent, order_id, content)
    location = f"/v1/agents/{agent.id}/versions/{version.number}"
    return made(AgentVersionModel.of(agent, version), location, repeated=repeated)


@router.get("/versions", response_model=AgentVersionPage, summary="List an agent's versions, newest first")
async def list_versions(
    agent_id: str,
    context: Context,
    caller: AgentReader,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """All of them, whatever their state."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    found, following = await context.agents.versions.page(caller.tenant_id, agent, after=cursor, limit=limit)
    items = [AgentVersionModel.of(agent, version) for version in found]
    page = AgentVersionPage(items=items, next_cursor=following)
    return page_answer(page, f"/v1/agents/{agent.id}/versions", limit=limit, cursor=following)


@router.get("/versions/{number}", response_model=AgentVersionModel, summary="A version of an agent")
async def get_version(agent_id: str, number: Number, context: Context, caller: AgentReader) -> Response:
    """What it says, and its state."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    version = await context.agents.versions.find(caller.tenant_id, agent, number)
    return answer(AgentVersionModel.of(agent, version))


@router.post(
    "/versions/{number}/promote", response_model=AgentModel, summary="Make a version the active one", responses=CHANGES
)
async def promote_version(
    agent_id: str, number: Number, context: Context, caller: AgentWriter, if_match: IfMatch = None
) -> Response:
    """Within a second every new run that names no version is given this one, on every edge; the former one becomes
    deprecated, and a canary ends. Runs that have begun keep the version they were given."""
    agent = await to_change(context, caller, agent_id, if_match)
    return await changed(context, caller, context.agents.versions.promote(author_of(caller), agent, number))


@router.post(
    "/versions/{number}/retire", response_model=AgentModel, summary="Retire a version for good", responses=CHANGES
)
async def retire_version(
    agent_id: str, number: Number, context: Context, caller: AgentWriter, if_match: IfMatch = None
) -> Response:
    """No new run is given it, by number or otherwise. The active version cannot be retired, nor one that is a
    canary."""
    agent = await to_change(context, caller, agent_id, if_match)
    return await changed(context, caller, context.agents.versions.retire(author_of(caller), agent, number))


@router.post("/rollback", response_model=AgentModel, summary="Go back to the former version", responses=CHANGES)
async def rollback_agent(agent_id: str, context: Context, caller: AgentWriter, if_match: IfMatch = None) -> Response:
    """Makes the version active again that was so before the last promotion, once: there is no way further back but to
    promote. A canary ends."""
    agent = await to_change(context, caller, agent_id, if_match)
    return await changed(context, caller, context.agents.versions.rollback(author_of(caller), agent))


async def to_change(context: EdgeContext, caller: Principal, agent_id: str, if_match: str | None) -> Agent:
    """The agent as the change was decided on. Raises where it is not that any more, or `if_match` names none."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    check_match(if_match, agent.version)
    return agent


async def changed(context: EdgeContext, caller: Principal, change: Awaitable[Agent]) -> Response:
    """What an agent is after a change that this edge's next run is to know of."""
    agent = await change
    context.agents.resolver.forget(caller.tenant_id, agent.name)
    return agent_response(agent)
