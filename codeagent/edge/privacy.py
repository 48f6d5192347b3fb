"""`/v1/privacy/requests`: what persons ask for about their data, and what they get."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from codeagent import clock
from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import NO_STORE, answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, EdgeContext, PrivacyOfficer
from codeagent.edge.examples.evidence import ERASURE_CERTIFICATE, SUBJECT_DATA
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.privacy_export import document
from codeagent.edge.privacy_models import NO_NULL, PrivacyBody, PrivacyModel, PrivacyPage, PrivacyPatch, RecordsModel
from codeagent.edge.problems import errors_of
from codeagent.errors import InvalidInput
from codeagent.identity.principal import Principal
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.privacy.requests import PREFIX, PrivacyOrder, PrivacyRequest, PrivacyRequests
from codeagent.privacy.subject_data import SubjectData

router = APIRouter(prefix="/v1/privacy", tags=["privacy"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "/requests",
    status_code=202,
    response_model=PrivacyModel,
    summary="Take in a request of a person about their data",
    responses={200: {"model": PrivacyModel, "description": "A repeat: the request was taken in before."}},
)
async def receive_privacy_request(
    body: PrivacyBody,
    context: Context,
    caller: PrivacyOfficer,
    key: RequestKey = None,
) -> Response:
    """Access (Art. 15), rectification (16), erasure (17), restriction (18), portability (20) and objection (21). It is
    due in a month. Nothing is done yet: that begins with `in_progress`."""
    named = derived_uuid(caller.tenant_id, caller.id, "POST /v1/privacy/requests", idempotency_key(key))
    order = PrivacyOrder(typed_id(PREFIX, named), body.kind, body.subject, body.note, body.fingerprint())
    request, repeated = await _requests(context).receive(author_of(caller), order)
    model, location = PrivacyModel.of(request, clock.now()), f"/v1/privacy/requests/{request.id}"
    return made(model, location, repeated=repeated, version=request.version, status=202, cache=NO_STORE)


def _requests(context: EdgeContext) -> PrivacyRequests:
    return PrivacyRequests(context.database)


def _answer(request: PrivacyRequest) -> Response:
    return answer(PrivacyModel.of(request, clock.now()), version=request.version, cache=NO_STORE)


@router.get("/requests", response_model=PrivacyPage, summary="List privacy requests, newest first")
async def list_privacy_requests(
    context: Context,
    caller: PrivacyOfficer,
    subject: Annotated[str | None, Query(max_length=100, pattern=NO_NULL, description="Those of one user.")] = None,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Those that have ended included; `overdue` shows what is late."""
    found, following = await _requests(context).page(caller.tenant_id, subject_id=subject, after=cursor, limit=limit)
    now = clock.now()
    page = PrivacyPage(items=[PrivacyModel.of(request, now) for request in found], next_cursor=following)
    return page_answer(page, "/v1/privacy/requests", subject=subject, limit=limit, cursor=following, cache=NO_STORE)


@router.get("/requests/{request_id}", response_model=PrivacyModel, summary="A privacy request")
async def get_privacy_request(request_id: str, context: Context, caller: PrivacyOfficer) -> Response:
    """With the ETag that changing it takes."""
    return _answer(await _requests(context).find(caller.tenant_id, request_id))


@router.patch(
    "/requests/{request_id}",
    response_model=PrivacyModel,
    summary="Carry a privacy request on",
    responses=errors_of(409, 412, 428),
)
async def change_privacy_request(
    request_id: str,
    context: Context,
    caller: PrivacyOfficer,
    body: PrivacyPatch | None = None,
    if_match: IfMatch = None,
) -> Response:
    """From `received` to `in_progress`, and from there to `completed` or `rejected`.

    With `in_progress` a restriction holds, and an erasure has removed the identity and ended all access: both within a
    second, in one transaction. Runs of the user are canceled within seconds, and once they have stopped, what the
    subject has left in the log is erased within a minute. An erasure cannot be `completed` before, nor as long as
    `result.remaining` names anything. An erasure of one who is under a legal hold does not begin (409 `legal_hold`).
    With `due_at` and a `reason` a request gets more time, once, up to three months from its receipt.
    """
    request = await _matched(context, caller, request_id, if_match)
    return _answer(await _carried_on(_requests(context), caller, request, body or PrivacyPatch()))


async def _carried_on(
    requests: PrivacyRequests, caller: Principal, request: PrivacyRequest, wanted: PrivacyPatch
) -> PrivacyRequest:
    author = author_of(caller)
    if (wanted.status is None) == (wanted.due_at is None):
        raise InvalidInput("Give a status, or another due_at.", pointer="/status")
    if not wanted.reason and (wanted.status == "rejected" or wanted.due_at is not None):
        raise InvalidInput("The person is told a reason.", pointer="/reason")
    if wanted.due_at is not None:
        return await requests.extend(author, request, wanted.due_at, wanted.reason)
    if wanted.status == "in_progress":
        return await requests.start(author, request)
    if wanted.status == "completed":
        return await requests.complete(author, request)
    return await requests.reject(author, request, wanted.reason)


async def _matched(context: EdgeContext, caller: Principal, request_id: str, if_match: str | None) -> PrivacyRequest:
    request = await _requests(context).find(caller.tenant_id, request_id)
    check_match(if_match, request.version)
    return request


@router.post(
    "/requests/{request_id}/lift",
    response_model=PrivacyModel,
    summary="Lift the restriction that a request has brought",
    responses=errors_of(409, 412, 428),
)
async def lift_restriction(
    request_id: str, context: Context, caller: PrivacyOfficer, if_match: IfMatch = None
) -> Response:
    """The user may log in again. API keys of theirs work again within two minutes of the restriction, or at once."""
    request = await _matched(context, caller, request_id, if_match)
    return _answer(await _requests(context).lift(author_of(caller), request))


@router.get(
    "/requests/{request_id}/export",
    summary="Everything that is kept of the subject",
    response_class=StreamingResponse,
    response_description="One JSON document.",
    responses={200: {"content": {"application/json": {"example": SUBJECT_DATA}}}, **errors_of(409)},
)
async def export_subject_data(request_id: str, context: Context, caller: PrivacyOfficer) -> Response:
    """For requests of the kinds `access` and `portability` that are in progress or completed: user record, logins, API
    keys' metadata, service accounts they made, runs that they submitted and that were started for those, each with all
    that was said in it (`events`), what they have written in runs of others and elsewhere, and the audit's lines about
    them; nothing of others. An event that cannot be read says so (`unreadable`) and ends nothing. That it was taken is
    written down. Artifacts are named by digest, to be fetched apart."""
    requests = _requests(context)
    request = await requests.exported(author_of(caller), await requests.find(caller.tenant_id, request_id))
    box = None if context.users is None else context.users.box
    body = document(SubjectData(context.database, context.log, box), caller.tenant_id, request)
    headers = {"Cache-Control": NO_STORE, "Content-Disposition": f'attachment; filename="{request.id}.json"'}
    return StreamingResponse(body, headers=headers, media_type="application/json")


@router.get(
    "/requests/{request_id}/certificate",
    summary="The certificate of an erasure",
    response_class=PlainTextResponse,
    response_description="A signed note.",
    responses={200: {"content": {"text/plain": {"example": ERASURE_CERTIFICATE}}}, **errors_of(409)},
)
async def erasure_certificate(request_id: str, context: Context, caller: PrivacyOfficer) -> Response:
    """What was erased, when, and what remains, signed with the key of the event log: `codeagent privacy certificate`
    checks it, as does anybody who has that key's public half. 409 (`erasure_in_progress`) until it is there."""
    text = await _requests(context).certificate(await _requests(context).find(caller.tenant_id, request_id))
    return PlainTextResponse(text, headers={"Cache-Control": NO_STORE})


@router.get(
    "/records-of-processing", response_model=RecordsModel, summary="The record of processing activities (Art. 30)"
)
async def records_of_processing(caller: PrivacyOfficer) -> Response:
    """What personal data this software keeps, where, what for, how long, and what an erasure does with it."""
    return answer(RecordsModel.of_list(), cache=NO_STORE)
