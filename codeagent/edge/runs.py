"""`/v1/runs`: submit, list, look, follow, cancel."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from codeagent.edge.accept import accept_cancel, accept_run, idempotency_key
from codeagent.edge.admission import StreamReader, streams
from codeagent.edge.context import Context, RunCanceler, RunReader, RunWriter
from codeagent.edge.joined import EventStream, structured
from codeagent.edge.live import RunSource
from codeagent.edge.models import CancelBody, EventPage, RunBody, RunModel, RunPage, RunSummary
from codeagent.edge.problems import Problem
from codeagent.edge.sse import TRANSPORT, sse_response
from codeagent.errors import Conflict, Rejected
from codeagent.messages.ids import run_stream
from codeagent.messages.values import RunStatus
from codeagent.projections.runs import list_runs
from codeagent.projections.view import RunView

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (400, 401, 404, 422, 503)
}
router = APIRouter(prefix="/v1", tags=["runs"], responses=ERRORS)


@router.post("/runs", status_code=202, response_model=RunModel, summary="Start a run")
async def submit_run(
    body: RunBody,
    context: Context,
    caller: RunWriter,
    key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
) -> Response:
    """Accepts a task. The answer comes once the command is safe; follow the `monitor` link to watch it work.

    The same Idempotency-Key with the same body always names the same run.
    """
    accepted = await accept_run(context, caller, body, idempotency_key(key))
    run_id = accepted.command.run_id
    headers = {
        "Location": f"/v1/runs/{run_id}",
        "Retry-After": "1",
        "Link": f'</v1/runs/{run_id}/events>; rel="monitor"',
    }
    if accepted.repeated:
        headers["Idempotent-Replayed"] = "true"
        return _run_response(await context.views.get(caller.tenant_id, run_id), 202, headers)
    view = RunView(run_id, caller.tenant_id)
    view.ordered(accepted.command, accepted.at)
    return _run_response(view, 202, headers)


def _run_response(view: RunView, status: int, headers: dict[str, str]) -> Response:
    content = RunModel.of(view).model_dump_json().encode()
    etag = {"ETag": f'"{view.version}"', "Cache-Control": "private, no-cache"}
    return Response(content, status, {**etag, **headers}, media_type="application/json")


@router.get("/runs", response_model=RunPage, summary="List runs, newest first")
async def get_runs(
    context: Context,
    caller: RunReader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    status: RunStatus | None = None,
) -> Response:
    """The list follows the log with a short delay; `/v1/runs/{id}` is always up to date."""
    rows, following = await list_runs(context.database, caller.tenant_id, status=status, after=cursor, limit=limit)
    page = RunPage(items=[RunSummary.of(row) for row in rows], next_cursor=following)
    headers = {}
    if following is not None:
        headers["Link"] = f'</v1/runs?limit={limit}&cursor={following}>; rel="next"'
    return Response(page.model_dump_json(), 200, headers, media_type="application/json")


@router.get("/runs/{run_id}", response_model=RunModel, summary="A run as it is now")
async def get_run(
    run_id: str,
    context: Context,
    caller: RunReader,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    view = await context.views.get(caller.tenant_id, run_id)
    if if_none_match is not None and f'"{view.version}"' in if_none_match:
        return Response(status_code=304, headers={"ETag": f'"{view.version}"'})
    return _run_response(view, 200, {})


@router.post("/runs/{run_id}/cancel", status_code=202, response_model=RunModel, summary="Cancel a run")
async def cancel_run(run_id: str, context: Context, caller: RunCanceler, body: CancelBody | None = None) -> Response:
    """Asks the run to stop. It ends `canceled` within seconds, or otherwise if it ended first."""
    view = await context.views.get(caller.tenant_id, run_id)
    if view.status is RunStatus.CANCELED:
        return _run_response(view, 202, {})
    if view.status.terminal:
        raise Conflict(f"The run has already ended ({view.status}).", code="invalid_state_transition")
    await accept_cancel(context, caller, run_id, body.reason if body is not None else "")
    return _run_response(view, 202, {"Location": f"/v1/runs/{run_id}"})


@router.get(
    "/runs/{run_id}/events",
    response_model=EventPage,
    summary="A run's events",
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "Nothing will follow."}},
)
async def get_events(
    run_id: str,
    request: Request,
    context: Context,
    caller: StreamReader,
    after: Annotated[str | None, Query(max_length=20)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
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
        source = RunSource(context.log, context.hub, view.tenant_id, view.run_id, transport=TRANSPORT)
        return sse_response(EventStream(source, position, caller, heartbeat_seconds=context.policy.heartbeat_seconds))
    events = await context.log.read_stream(caller.tenant_id, run_stream(run_id), position, limit)
    more = len(events) == limit and events[-1].version < view.version
    following = events[-1].version if more else None
    headers = {"Cache-Control": "private, no-cache"}
    if following is not None:
        headers["Link"] = f'</v1/runs/{run_id}/events?limit={limit}&after={following}>; rel="next"'
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
