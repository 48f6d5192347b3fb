"""`/v1/events`: what happens in all runs of a tenant, as pages and as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from codeagent.edge.admission import StreamReader, streams
from codeagent.edge.answers import PRIVATE
from codeagent.edge.context import Context, EdgeContext
from codeagent.edge.event_models import FeedPage
from codeagent.edge.examples.runs import EVENT_STREAM
from codeagent.edge.feed import FeedSource
from codeagent.edge.joined import EventStream, structured
from codeagent.edge.pages import next_link
from codeagent.edge.sse import STREAM_ITEM, TRANSPORT, sse_response
from codeagent.edge.traffic.exchange import exchange_of
from codeagent.errors import InvalidInput, Rejected
from codeagent.eventlog.feed import Wanted
from codeagent.eventlog.log import Cursor
from codeagent.messages.catalog import RUN_EVENTS

router = APIRouter(prefix="/v1", tags=["events"])
LATEST = "latest"
_TYPES = frozenset(event.NAME for event in RUN_EVENTS)


@router.get(
    "/events",
    response_model=FeedPage,
    summary="Events of all runs",
    response_description="A page of events, or the stream.",
    responses={
        200: {"content": {"text/event-stream": {"itemSchema": STREAM_ITEM, "example": EVENT_STREAM}}},
        404: {"description": "The tenant has no run of this id."},
    },
)
async def get_feed(
    request: Request,
    context: Context,
    caller: StreamReader,
    types: Annotated[
        str | None, Query(max_length=500, description="Only these, by commas.", examples=["run.completed,run.failed"])
    ] = None,
    run_id: Annotated[str | None, Query(max_length=40, description="Only this run's.")] = None,
    after: Annotated[
        str | None, Query(max_length=200, description="A cursor, or `latest` for what is yet to come.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Events a page.")] = 200,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=200, description="As `after`, and stronger.")
    ] = None,
) -> Response:
    """With `Accept: text/event-stream` a stream that goes on until one side ends it; otherwise a page as JSON.

    Events are in the order in which they became durable, which is the same for every reader and on every replica:
    each comes once, also after a reconnect with `Last-Event-ID`. Cursors are opaque and never expire. There are no
    deltas here: follow a run's own stream for those. Without a cursor the feed begins with the tenant's first event.
    """
    caller.check(None)
    wanted = await wanted_events(context, caller.tenant_id, types.split(",") if types else None, run_id)
    position = await feed_position(context, last_event_id if last_event_id is not None else after)
    if streams(request):
        context.traffic.hold(exchange_of(request), caller.tenant_id)
        source = FeedSource(context.log, context.hub.feeds, caller.tenant_id, wanted, transport=TRANSPORT)
        return sse_response(EventStream(source, position, caller, heartbeat_seconds=context.policy.heartbeat_seconds))
    page = await context.log.feed(caller.tenant_id, position, limit, wanted)
    headers = {"Cache-Control": PRIVATE}
    following = str(page.cursor) if page.more else None
    if following is not None:
        headers["Link"] = next_link("/v1/events", types=types, run_id=run_id, limit=limit, after=following)
    items = [structured(event) for event in page.events]
    return JSONResponse({"items": items, "next_cursor": following, "cursor": str(page.cursor)}, headers=headers)


async def wanted_events(
    context: EdgeContext, tenant_id: str, types: Sequence[str] | None, run_id: str | None
) -> Wanted:
    """Raises `unsupported_event_type`, and `not_found` for a run that the tenant does not have."""
    unknown = sorted(set(types or ()) - _TYPES)
    if unknown:
        detail = f"There is no event type {unknown[0][:60]!r}."
        raise InvalidInput(detail, code="unsupported_event_type", pointer="query:types")
    if run_id is not None:
        await context.views.get(tenant_id, run_id)
    return Wanted(None if types is None else tuple(types), run_id)


async def feed_position(context: EdgeContext, text: str | None) -> Cursor:
    """Where a client of the feed is. Raises `malformed_cursor` or `cursor_past_head`."""
    if text is None or text == "":
        return Cursor()
    cursor = None if text == LATEST else Cursor.parse(text)
    horizon = await context.log.horizon()
    if cursor is None:
        return horizon.cursor
    if cursor.transaction_id > horizon.newest:
        raise Rejected("The log has not come that far.", code="cursor_past_head")
    return cursor
