"""`/v1/agents`: define agents, list, describe and archive them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from codeagent.agent_registry.agent import Agent
from codeagent.agent_registry.agents import AgentOrder
from codeagent.edge.accept import idempotency_key
from codeagent.edge.agent_models import AgentBody, AgentModel, AgentPage, AgentPatch
from codeagent.edge.answers import PRIVATE, answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import AgentReader, AgentWriter, Context
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IF_NONE_MATCH, IfMatch, RequestKey, taking
from codeagent.edge.preconditions import check_match, etag, not_modified
from codeagent.edge.problems import errors_of
from codeagent.edge.traffic.exchange import exchange_of
from codeagent.messages.ids import derived_uuid, typed_id

router = APIRouter(prefix="/v1/agents", tags=["agents"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "",
    status_code=201,
    response_model=AgentModel,
    summary="Define an agent",
    responses={
        200: {"model": AgentModel, "description": "A repeat: the agent as it is now."},
        409: {"description": "The name is taken, by a built-in or an archived agent too."},
    },
)
async def create_agent(body: AgentBody, context: Context, caller: AgentWriter, key: RequestKey = None) -> Response:
    """An agent without a version: make one under `/versions`, try it as a draft, and promote it."""
    agent_id = typed_id("agt", derived_uuid(caller.tenant_id, caller.id, "POST /v1/agents", idempotency_key(key)))
    order = AgentOrder(agent_id, body.name, body.description)
    agent, repeated = await context.agents.definitions.create(author_of(caller), order)
    return made(AgentModel.of(agent), f"/v1/agents/{agent.id}", repeated=repeated, version=agent.version)


def agent_response(agent: Agent) -> Response:
    return answer(AgentModel.of(agent), version=agent.version)


@router.get("", response_model=AgentPage, summary="List agents by name")
async def list_agents(
    context: Context,
    caller: AgentReader,
    limit: Limit = 50,
    cursor: PageCursor = None,
    archived: Annotated[bool, Query(description="Archived ones too.")] = False,
) -> Response:
    """The tenant's agents, and those that are built in."""
    found, following = await context.agents.definitions.page(
        caller.tenant_id, after=cursor, limit=limit, archived=archived
    )
    shown = "true" if archived else None
    page = AgentPage(items=[AgentModel.of(agent) for agent in found], next_cursor=following)
    return page_answer(page, "/v1/agents", archived=shown, limit=limit, cursor=following)


@router.get(
    "/{agent_id}",
    response_model=AgentModel,
    summary="An agent, by id or name",
    openapi_extra=taking(IF_NONE_MATCH),
    responses={304: {"description": "The agent is still at the version that If-None-Match names."}},
)
async def get_agent(agent_id: str, request: Request, context: Context, caller: AgentReader) -> Response:
    """With the ETag that changing it takes."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    tag = etag(agent.version)
    if not_modified(exchange_of(request).header(b"if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": PRIVATE})
    return agent_response(agent)


@router.patch(
    "/{agent_id}", response_model=AgentModel, summary="Describe an agent anew", responses=errors_of(409, 412, 428)
)
async def update_agent(
    agent_id: str, body: AgentPatch, context: Context, caller: AgentWriter, if_match: IfMatch = None
) -> Response:
    """What the agent does is changed by another version of it."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    check_match(if_match, agent.version)
    return agent_response(await context.agents.definitions.describe(author_of(caller), agent, body.description))


@router.delete("/{agent_id}", status_code=204, summary="Archive an agent", responses=errors_of(409, 412, 428))
async def archive_agent(agent_id: str, context: Context, caller: AgentWriter, if_match: IfMatch = None) -> Response:
    """For good: within a second no new run takes it, and those that have begun go on. It can still be looked at, and
    its name stays taken."""
    agent = await context.agents.definitions.find(caller.tenant_id, agent_id)
    check_match(if_match, agent.version)
    await context.agents.definitions.archive(author_of(caller), agent)
    context.agents.resolver.forget(caller.tenant_id, agent.name)
    return Response(status_code=204)
