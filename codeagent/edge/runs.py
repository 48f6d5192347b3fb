"""`/v1/runs`: submit, list, look, follow, cancel."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from codeagent.edge import preferences
from codeagent.edge.accept import accept_cancel, accept_run, idempotency_key
from codeagent.edge.admission import StreamReader, streams
from codeagent.edge.answers import PRIVATE
from codeagent.edge.context import Context, EdgeContext, RunCanceler, RunReader, RunWriter
from codeagent.edge.event_models import EventPage
from codeagent.edge.examples.runs import EVENT_STREAM
from codeagent.edge.joined import EventStream, structured
from codeagent.edge.live import RunSource
from codeagent.edge.models import (
    CancelBody,
    ProjectId,
    RunBody,
    RunId,
    RunModel,
    RunPage,
    RunSummary,
    SessionId,
)
from codeagent.edge.moments import Moment
from codeagent.edge.pages import next_link, page_answer
from codeagent.edge.parameters import IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH, PREFER, taking
from codeagent.edge.preconditions import check_match, etag, not_modified
from codeagent.edge.preferences import Preferences
from codeagent.edge.replayed import ReplayOrder
from codeagent.edge.sse import STREAM_ITEM, TRANSPORT, sse_response
from codeagent.edge.traffic.exchange import Exchange, exchange_of
from codeagent.edge.waiting import has_ended, until
from codeagent.errors import Conflict, Rejected
from codeagent.identity.principal import Principal
from codeagent.messages.ids import run_stream
from codeagent.messages.values import RunStatus
from codeagent.projections.runs import RunFilter, list_runs
from codeagent.projections.view import RunView

router = APIRouter(prefix="/v1", tags=["runs"])

AGENT_PATTERN = r"^[a-z0-9-]{1,63}(@[1-9][0-9]{0,8})?$"
SUBMITTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The run, ended within the time of `Prefer: wait`.", "model": RunModel},
    409: {
        "description": "The same request is being accepted elsewhere (`idempotency_in_progress`), a run of the session "
        "is at work (`session_busy`), or there is no more to be had (`session_closed`, `project_archived`)."
    },
    422: {"description": "A field cannot be accepted, or the Idempotency-Key was used for another body."},
}
"""What submitting a run may answer, besides 202."""


@router.post(
    "/runs",
    status_code=202,
    response_model=RunModel,
    response_description="The run, accepted.",
    summary="Start a run",
    openapi_extra=taking(IDEMPOTENCY_KEY, PREFER),
    responses=SUBMITTED,
)
async def submit_run(body: RunBody, request: Request, caller: RunWriter) -> Response:
    """Accepts a task. The answer comes once the command is safe; follow the `monitor` link to watch it work.

    The same Idempotency-Key with the same body always names the same run. With `Prefer: wait=30` the answer is the
    ended run (200) if it ends within 30 seconds, and the accepted one (202) otherwise.
    """
    return await submitted(request, caller, body, "POST /v1/runs")


async def submitted(request: Request, caller: Principal, body: RunBody | ReplayOrder, route: str) -> Response:
    """The answer to a request for a run, on the route that its Idempotency-Key counts for."""
    context: EdgeContext = request.app.state.context
    exchange = exchange_of(request)
    wanted = _preferences(exchange, request)
    key = idempotency_key(exchange.header(b"idempotency-key"))
    accepted = await accept_run(context, caller, body, key, route)
    run_id = accepted.run_id
    headers = {
        "Location": f"/v1/runs/{run_id}",
        "Retry-After": "1",
        "Link": f'</v1/runs/{run_id}/events>; rel="monitor"',
    }
    if accepted.command is None:
        headers["Idempotent-Replayed"] = "true"
        view = await context.views.get(caller.tenant_id, run_id)
    else:
        view = RunView(run_id, caller.tenant_id)
        view.ordered(accepted.command, accepted.at)
    if not wanted.wait_seconds:
        return await _run_response(context, view, 202, headers, wanted)
    view = await until(has_ended, context, exchange, caller, view, wanted.wait_seconds)
    return await _run_response(context, view, 200 if view.status.terminal else 202, headers, wanted)


def _preferences(exchange: Exchange, request: Request) -> Preferences:
    # Looked for first: most requests have none, and the framework's list of values is slow to make.
    return preferences.parse(request.headers.getlist("prefer") if b"prefer" in exchange.asked else ())


async def _run_response(
    context: EdgeContext,
    view: RunView,
    status: int,
    headers: dict[str, str],
    wanted: Preferences = preferences.NONE,
) -> Response:
    model = None if wanted.minimal else RunModel.of(view, await context.views.reason(view))
    content = b"" if model is None else model.model_dump_json().encode()
    told = {"ETag": etag(view.version), "Cache-Control": PRIVATE, "Vary": "Prefer", **headers}
    if wanted is not preferences.NONE and (applied := wanted.applied()):
        told["Preference-Applied"] = applied
    return Response(content, status, told, media_type="application/json" if content else None)


def _wanted(
    status: Annotated[RunStatus | None, Query(description="Only runs of this status.")] = None,
    project_id: Annotated[ProjectId | None, Query(description="Only runs of this project.")] = None,
    session_id: Annotated[SessionId | None, Query(description="Only runs of this session.")] = None,
    agent: Annotated[
        str | None,
        Query(pattern=AGENT_PATTERN, description="Only runs of this agent, or of one version of it (`name@number`)."),
    ] = None,
    updated_after: Annotated[Moment | None, Query(description="Only runs that have changed after this moment.")] = None,
    parent: Annotated[RunId | None, Query(description="Only runs that this run has started.")] = None,
) -> RunFilter:
    return RunFilter(status, project_id, session_id, agent, updated_after, parent)


@router.get("/runs", response_model=RunPage, response_description="A page of runs.", summary="List runs, newest first")
async def get_runs(
    context: Context,
    caller: RunReader,
    wanted: Annotated[RunFilter, Depends(_wanted)],
    limit: Annotated[int, Query(ge=1, le=200, description="Runs a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """All that fit every filter given. The list follows the log with a short delay; `/v1/runs/{id}` is always up to
    date.

    Pages do not overlap and leave nothing out: runs that begin meanwhile stand before the first page.
    """
    return await page_of_runs(context, caller, wanted, "/v1/runs", cursor=cursor, limit=limit)


async def page_of_runs(
    context: EdgeContext, caller: Principal, wanted: RunFilter, path: str, *, cursor: str | None, limit: int
) -> Response:
    """A page of the list at `path`, with the link to the next one."""
    rows, following = await list_runs(context.database, caller.tenant_id, wanted, after=cursor, limit=limit)
    page = RunPage(items=[RunSummary.of(row) for row in rows], next_cursor=following)
    asked = {} if path != "/v1/runs" else asdict(wanted)
    return page_answer(page, path, **asked, limit=limit, cursor=following)


@router.get(
    "/runs/{run_id}",
    response_model=RunModel,
    response_description="The run. With `Prefer: wait`, one that has ended.",
    summary="A run as it is now",
    openapi_extra=taking(IF_NONE_MATCH, PREFER),
    responses={
        202: {"description": "The run, which has not ended within the time of `Prefer: wait`.", "model": RunModel},
        304: {"description": "The run is still at the version that If-None-Match names."},
    },
)
async def get_run(run_id: str, request: Request, context: Context, caller: RunReader) -> Response:
    """The run with all that its events have told so far. `Prefer: wait=30` answers when it has ended (200), or after
    30 seconds with what there is (202)."""
    exchange = exchange_of(request)
    wanted = _preferences(exchange, request)
    view = await context.views.get(caller.tenant_id, run_id)
    if wanted.wait_seconds:
        view = await until(has_ended, context, exchange, caller, view, wanted.wait_seconds)
    tag = etag(view.version)
    if not_modified(exchange.header(b"if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": PRIVATE, "Vary": "Prefer"})
    # A client that asks for a representation gets one, whatever it prefers to be spared after a change.
    wanted = Preferences(wanted.wait_seconds)
    return await _run_response(
        context, view, 202 if wanted.wait_seconds and not view.status.terminal else 200, {}, wanted
    )


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    response_model=RunModel,
    response_description="The run, as it is before it has stopped.",
    summary="Cancel a run",
    openapi_extra=taking(IF_MATCH, PREFER),
    responses={
        409: {"description": "The run has ended otherwise (`invalid_state_transition`)."},
        412: {"description": "The run has moved on since the version that If-Match names."},
    },
)
async def cancel_run(
    run_id: str, request: Request, context: Context, caller: RunCanceler, body: CancelBody | None = None
) -> Response:
    """Asks the run to stop. It ends `canceled` within seconds, or otherwise if it ended first."""
    exchange = exchange_of(request)
    wanted = Preferences(minimal=_preferences(exchange, request).minimal)
    view = await context.views.get(caller.tenant_id, run_id)
    if (decided_on := exchange.header(b"if-match")) is not None and decided_on.strip():
        check_match(decided_on, view.version)
    if view.status is RunStatus.CANCELED:
        return await _run_response(context, view, 202, {}, wanted)
    if view.status.terminal:
        raise Conflict(f"The run has already ended ({view.status}).", code="invalid_state_transition")
    await accept_cancel(context, caller, view, body.reason if body is not None else "")
    return await _run_response(context, view, 202, {"Location": f"/v1/runs/{run_id}"}, wanted)


@router.get(
    "/runs/{run_id}/events",
    response_model=EventPage,
    response_description="A page of events, or the stream.",
    summary="A run's events",
    responses={
        200: {"content": {"text/event-stream": {"itemSchema": STREAM_ITEM, "example": EVENT_STREAM}}},
        204: {"description": "Nothing will follow: the run has ended, and the client has all of it."},
    },
)
async def get_events(
    run_id: str,
    request: Request,
    context: Context,
    caller: StreamReader,
    after: Annotated[
        str | None, Query(max_length=200, description="Version of the newest event that is known.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Events a page.")] = 200,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=200, description="As `after`, and stronger.")
    ] = None,
) -> Response:
    """With `Accept: text/event-stream` a stream that goes on until the run ends; otherwise a page as JSON.

    `Last-Event-ID`, or `after`, is the version of the newest event the client has: what follows it is sent, all of
    it and each once. Events without an `id` are live only and may be lost.
    """
    caller.check(run_id)
    view = await context.views.get(caller.tenant_id, run_id)
    position = run_position(last_event_id if last_event_id is not None else after, view)
    if streams(request):
        if view.status.terminal and position == view.version:
            return Response(status_code=204)
        context.traffic.hold(exchange_of(request), caller.tenant_id)
        source = RunSource(context.log, context.hub, view.tenant_id, view.run_id, transport=TRANSPORT)
        return sse_response(EventStream(source, position, caller, heartbeat_seconds=context.policy.heartbeat_seconds))
    events = await context.log.read_stream(caller.tenant_id, run_stream(run_id), position, limit)
    more = len(events) == limit and events[-1].version < view.version
    following = events[-1].version if more else None
    headers = {"Cache-Control": PRIVATE}
    if following is not None:
        headers["Link"] = next_link(f"/v1/runs/{run_id}/events", limit=limit, after=following)
    page = {"items": [structured(event) for event in events], "next_after": following, "head": view.version}
    return JSONResponse(page, headers=headers)


def run_position(text: str | None, view: RunView) -> int:
    """Where a client of a run's stream is. Raises `malformed_cursor` or `cursor_past_head`."""
    if text is None or text == "":
        return 0
    if not text.isdecimal() or not text.isascii():
        raise Rejected("A cursor of this stream is a number.", code="malformed_cursor")
    position = int(text)
    if position > view.version:
        raise Rejected(f"The stream's newest event is {view.version}.", code="cursor_past_head")
    return position
