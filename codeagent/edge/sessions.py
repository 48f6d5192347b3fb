"""`/v1/sessions`: conversations, their runs, and the next thing to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, EdgeContext, RunReader, RunWriter
from codeagent.edge.models import ProjectId, RunModel, RunPage
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IDEMPOTENCY_KEY, PREFER, IfMatch, RequestKey, taking
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.edge.resolve import project_of
from codeagent.edge.runs import SUBMITTED, page_of_runs, submitted
from codeagent.edge.session_models import MessageBody, SessionBody, SessionModel, SessionPage, SessionPatch
from codeagent.identity.principal import Principal
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.projections.runs import RunFilter
from codeagent.projections.session_statistics import session_statistics
from codeagent.projects.sessions import PREFIX, Session, SessionOrder

router = APIRouter(prefix="/v1/sessions", tags=["sessions"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "",
    status_code=201,
    response_model=SessionModel,
    summary="Begin a session",
    responses={200: {"model": SessionModel, "description": "A repeat: the session was made before."}},
)
async def create_session(
    body: SessionBody,
    context: Context,
    caller: RunWriter,
    key: RequestKey = None,
) -> Response:
    """It has no run yet: the first message brings it its files. In a project that is archived it can have none."""
    repeat = idempotency_key(key)
    if body.project_id is not None:
        await project_of(context, caller, body.project_id)
    session_id = typed_id(PREFIX, derived_uuid(caller.tenant_id, caller.id, "POST /v1/sessions", repeat))
    order = SessionOrder(session_id, body.project_id, body.title, body.fingerprint())
    session, repeated = await context.sessions.create(author_of(caller), order)
    location = f"/v1/sessions/{session.id}"
    [shown] = await _shown(context, caller, [session])
    return made(shown, location, repeated=repeated, version=session.version)


@router.get("", response_model=SessionPage, summary="List sessions, newest first")
async def list_sessions(
    context: Context,
    caller: RunReader,
    limit: Limit = 50,
    cursor: PageCursor = None,
    project_id: Annotated[ProjectId | None, Query(description="Only sessions of this project.")] = None,
) -> Response:
    """The tenant's sessions, closed ones included."""
    found, following = await context.sessions.page(caller.tenant_id, project_id=project_id, after=cursor, limit=limit)
    page = SessionPage(items=await _shown(context, caller, found), next_cursor=following)
    return page_answer(page, "/v1/sessions", project_id=project_id, limit=limit, cursor=following)


@router.get("/{session_id}", response_model=SessionModel, summary="A session as it is now")
async def get_session(session_id: str, context: Context, caller: RunReader) -> Response:
    """With the ETag that changing it takes. `stats` change without it, as its runs go on."""
    session = await context.sessions.find(caller.tenant_id, session_id)
    [shown] = await _shown(context, caller, [session])
    return answer(shown, version=session.version)


@router.patch("/{session_id}", response_model=SessionModel, summary="Rename a session", responses=errors_of(412, 428))
async def rename_session(
    session_id: str, body: SessionPatch, context: Context, caller: RunWriter, if_match: IfMatch = None
) -> Response:
    """Changes its title and nothing else."""
    session = await context.sessions.find(caller.tenant_id, session_id)
    check_match(if_match, session.version)
    renamed = await context.sessions.rename(author_of(caller), session, body.title)
    [shown] = await _shown(context, caller, [renamed])
    return answer(shown, version=renamed.version)


@router.delete("/{session_id}", status_code=204, summary="Close a session", responses=errors_of(412, 428))
async def close_session(session_id: str, context: Context, caller: RunWriter, if_match: IfMatch = None) -> Response:
    """It takes no more messages (`session_closed`). A run at work goes on. A repeat changes nothing."""
    session = await context.sessions.find(caller.tenant_id, session_id)
    if session.closed_at is None:
        check_match(if_match, session.version)
        await context.sessions.close(author_of(caller), session)
    return Response(status_code=204)


async def _shown(context: EdgeContext, caller: Principal, sessions: Sequence[Session]) -> list[SessionModel]:
    """Sessions with what their runs have brought."""
    ids = [session.id for session in sessions]
    stats = await session_statistics(context.database, caller.tenant_id, ids)
    return [SessionModel.of(session, stats[session.id]) for session in sessions]


@router.get("/{session_id}/runs", response_model=RunPage, summary="A session's runs, newest first")
async def session_runs(
    session_id: str,
    context: Context,
    caller: RunReader,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """As `/v1/runs?session_id=`: the list follows the log with a short delay."""
    await context.sessions.find(caller.tenant_id, session_id)
    wanted = RunFilter(session_id=session_id)
    return await page_of_runs(context, caller, wanted, f"/v1/sessions/{session_id}/runs", cursor=cursor, limit=limit)


@router.post(
    "/{session_id}/messages",
    status_code=202,
    response_model=RunModel,
    response_description="The run, accepted.",
    summary="Say what is to be done next",
    openapi_extra=taking(IDEMPOTENCY_KEY, PREFER),
    responses=SUBMITTED,
)
async def send_message(session_id: str, body: MessageBody, request: Request, caller: RunWriter) -> Response:
    """Starts the session's next run, as `POST /v1/runs` with its `session_id`: on the files that the run before has
    left, and knowing what was said. While a run of the session is at work the answer is 409 `session_busy`."""
    await request.app.state.context.sessions.find(caller.tenant_id, session_id)
    return await submitted(request, caller, body.run(session_id), f"POST /v1/sessions/{session_id}/messages")
