"""`/v1/audit`: who did what, from where, when; whether the log still says it; all of it as a file."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse

from codeagent import clock
from codeagent.edge.answers import NO_STORE
from codeagent.edge.audit_export import ExportFormat, Proofs, lines
from codeagent.edge.audit_models import AuditPage, VerificationModel, cloud_event
from codeagent.edge.audit_verify import verified
from codeagent.edge.authors import author_of
from codeagent.edge.context import AuditReader, Context
from codeagent.edge.examples.evidence import AUDIT_EVENT, AUDIT_EXPORT
from codeagent.edge.moments import Moment
from codeagent.edge.pages import next_link
from codeagent.edge.problems import errors_of
from codeagent.errors import InvalidInput, NotFound
from codeagent.messages.ids import run_stream
from codeagent.projections.audit import Outcome
from codeagent.projections.audit_reads import AuditReads, SearchCursor
from codeagent.projections.audit_search import AuditFilter, AuditSearch
from codeagent.transparency.lookup import LogLookup
from codeagent.transparency.ocsf import VERSION

router = APIRouter(prefix="/v1/audit", tags=["audit"], responses=errors_of(400, 401, 403, 404, 422, 503))
_NAME = r"^[A-Za-z0-9_.:-]{1,100}$"
"""Ids and names of ours. Nothing that could be a person's name or address: filters are written down."""


async def get_filter(
    actor: Annotated[str | None, Query(pattern=_NAME, description="Id of the user, account or key owner.")] = None,
    action: Annotated[str | None, Query(pattern=_NAME, description="Event type.", examples=["api_key.created"])] = None,
    resource_kind: Annotated[str | None, Query(pattern=_NAME, description="As in `api_key`, `user`, `run`.")] = None,
    resource_id: Annotated[str | None, Query(pattern=_NAME, description="Id of what it was done to.")] = None,
    outcome: Annotated[Outcome | None, Query(description="How it ended.")] = None,
    since: Annotated[Moment | None, Query(description="From this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Before this moment.")] = None,
) -> AuditFilter:
    """Raises `validation_failed` for what cannot be."""
    if since is not None and until is not None and since >= until:
        raise InvalidInput("It ends before it begins.", pointer="query:until")
    return AuditFilter(actor, action, resource_kind, resource_id, outcome, since, until)


Wanted = Annotated[AuditFilter, Depends(get_filter)]


@router.get("/events", response_model=AuditPage, summary="Search the audit, newest first")
async def search_audit(
    context: Context,
    caller: AuditReader,
    wanted: Wanted,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=250)] = None,
) -> Response:
    """Who did what to which thing. The search itself is written down once, as `audit.read`, however many pages are
    read; a cursor continues the search that it is from, for the same caller. Lines appear within a second or so."""
    reads, reader = AuditReads(context.database), author_of(caller)
    place = None
    if cursor is None:
        read_id = await reads.record(reader, "search", wanted.text())
    else:
        found = SearchCursor.parse(cursor)
        await reads.check(reader, wanted.text(), found.read_id)
        place, read_id = found.place, found.read_id
    entries = await AuditSearch(context.database).newest(caller.tenant_id, wanted, place, limit + 1)
    following = str(SearchCursor(entries[limit - 1].place, read_id)) if len(entries) > limit else None
    headers = {"Cache-Control": NO_STORE}
    if following is not None:
        headers["Link"] = next_link("/v1/audit/events", **wanted.text(), limit=limit, cursor=following)
    items = [cloud_event(entry) for entry in entries[:limit]]
    return JSONResponse({"items": items, "next_cursor": following}, headers=headers)


@router.get(
    "/events/{event_id}",
    summary="One line of the audit",
    response_class=JSONResponse,
    response_description="The line, as a structured CloudEvent.",
    responses={200: {"content": {"application/json": {"example": AUDIT_EVENT}}}},
)
async def get_audit_event(event_id: str, context: Context, caller: AuditReader) -> Response:
    """As in the search, `unreadable` included. That it was read is written down."""
    try:
        wanted = UUID(event_id)
    except ValueError:
        raise NotFound("There is no such line.") from None
    entry = await AuditSearch(context.database).find(caller.tenant_id, wanted)
    if entry is None:
        raise NotFound("There is no such line.")
    await AuditReads(context.database).record(author_of(caller), "event", {"event_id": str(wanted)})
    return JSONResponse(cloud_event(entry), headers={"Cache-Control": NO_STORE})


@router.get("/verify", response_model=VerificationModel, summary="Verify a stream of the log")
async def verify_stream(
    context: Context,
    caller: AuditReader,
    run_id: Annotated[str | None, Query(pattern=_NAME, description="A run, with its effects.")] = None,
    stream_id: Annotated[
        str | None, Query(pattern=_NAME, description="Or any stream: kind and id.", examples=["api_key-key_1"])
    ] = None,
) -> Response:
    """Holds every stored byte against its digest and every event against its leaf hash, as `codeagent verify` does,
    for up to some thousand events; `complete` tells whether that was all of them."""
    if (run_id is None) == (stream_id is None):
        raise InvalidInput("Give run_id or stream_id.", pointer="query:run_id")
    wanted = run_stream(run_id) if run_id is not None else str(stream_id)
    result = await verified(context.log, caller.tenant_id, wanted)
    await AuditReads(context.database).record(author_of(caller), "verification", {"stream_id": wanted})
    return Response(result.model_dump_json(), headers={"Cache-Control": NO_STORE}, media_type="application/json")


@router.get(
    "/export",
    summary="The audit as JSON Lines, oldest first",
    response_class=StreamingResponse,
    response_description="One CloudEvent a line; the last one tells the number of the others and their digest.",
    responses={200: {"content": {"application/jsonl": {"schema": {"type": "string"}, "example": AUDIT_EXPORT}}}},
)
async def export_audit(
    context: Context,
    caller: AuditReader,
    wanted: Wanted,
    proofs: Annotated[bool, Query(description="Whether each line carries the proof that it is in the log.")] = False,
    form: Annotated[
        ExportFormat, Query(alias="format", description=f"A CloudEvent a line, or an event of OCSF {VERSION}.")
    ] = ExportFormat.CLOUDEVENTS,
) -> Response:
    """All lines that fit, up to now unless `until` is given. The last line is of the type
    `io.codeagent.audit.export.ended.v1`: an export without it was cut short. Its `sha256` is that of all lines
    before it. A line with `unreadable` stands for a fact that was damaged. With `proofs` it carries the signed
    checkpoint as well, to which the lines' `logpath` leads from their `logindex`, and `codeagent audit verify --export`
    verifies the file by itself. As OCSF, an event of another schema is made of each CloudEvent; with `proofs` that is
    in its `raw_data`, and verified with it."""
    found = None
    if proofs:
        lookup = LogLookup(context.database)
        found = Proofs(lookup, await lookup.newest())
    bounded = replace(wanted, until=wanted.until or clock.now())
    await AuditReads(context.database).record(author_of(caller), "export", bounded.text())
    body = lines(AuditSearch(context.database), caller.tenant_id, bounded, found, form)
    name = "audit.jsonl" if form is ExportFormat.CLOUDEVENTS else f"audit.{form}.jsonl"
    headers = {"Cache-Control": NO_STORE, "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(body, headers=headers, media_type="application/jsonl")
