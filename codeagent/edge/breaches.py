"""`/v1/privacy/breaches`: what went wrong with personal data, and the time that is left to say so."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from codeagent.edge.accept import idempotency_key
from codeagent.edge.authors import author_of
from codeagent.edge.context import Administrator, Context
from codeagent.edge.pages import next_link
from codeagent.edge.preconditions import check_match, etag
from codeagent.edge.privacy_models import BreachBody, BreachChange, BreachModel, BreachPage
from codeagent.edge.problems import errors_of
from codeagent.errors import InvalidInput
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.privacy.breaches import PREFIX, Breach, Breaches, BreachOrder

router = APIRouter(prefix="/v1/privacy/breaches", tags=["privacy"], responses=errors_of(400, 401, 403, 404, 422, 503))
NO_STORE = {"Cache-Control": "no-store"}


@router.post("", status_code=201, response_model=BreachModel, summary="Record a breach of personal data")
async def record_breach(
    body: BreachBody,
    context: Context,
    caller: Administrator,
    key: Annotated[str | None, Header(alias="Idempotency-Key", description="Names this request.")] = None,
) -> Response:
    """`notify_by` is 72 hours after its discovery: until then the authority has to know (Art. 33)."""
    named = derived_uuid(caller.tenant_id, caller.id, "POST /v1/privacy/breaches", idempotency_key(key))
    order = BreachOrder(
        id=typed_id(PREFIX, named),
        summary=body.summary,
        measures=body.measures,
        categories=body.categories,
        subjects_affected=body.subjects_affected,
        discovered_at=body.discovered_at,
        fingerprint=body.fingerprint(),
    )
    breach = await Breaches(context.database).record(author_of(caller), order)
    return _answer(breach, 201, {"Location": f"/v1/privacy/breaches/{breach.id}"})


def _answer(breach: Breach, status: int = 200, more: dict[str, str] | None = None) -> Response:
    headers = {"ETag": etag(breach.version), **NO_STORE, **(more or {})}
    return Response(BreachModel.of(breach).model_dump_json(), status, headers, media_type="application/json")


@router.get("", response_model=BreachPage, summary="List breaches, newest first")
async def list_breaches(
    context: Context,
    caller: Administrator,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Closed ones included."""
    found, following = await Breaches(context.database).page(caller.tenant_id, cursor, limit)
    headers = dict(NO_STORE)
    if following is not None:
        headers["Link"] = next_link("/v1/privacy/breaches", limit=limit, cursor=following)
    page = BreachPage(items=[BreachModel.of(breach) for breach in found], next_cursor=following)
    return Response(page.model_dump_json(), headers=headers, media_type="application/json")


@router.get("/{breach_id}", response_model=BreachModel, summary="A breach and its clock")
async def get_breach(breach_id: str, context: Context, caller: Administrator) -> Response:
    """With the ETag that changing it takes."""
    return _answer(await Breaches(context.database).find(caller.tenant_id, breach_id))


@router.patch(
    "/{breach_id}",
    response_model=BreachModel,
    summary="Add to a breach what is known now",
    responses=errors_of(409, 412, 428),
)
async def update_breach(
    breach_id: str,
    context: Context,
    caller: Administrator,
    body: BreachChange | None = None,
    if_match: Annotated[str | None, Header(alias="If-Match", description="The breach's ETag.")] = None,
) -> Response:
    """Above all when the authority and the persons were told. A closed one changes no more."""
    breaches = Breaches(context.database)
    breach = await breaches.find(caller.tenant_id, breach_id)
    check_match(if_match, breach.version)
    values = body.values() if body is not None else {}
    if not values:
        raise InvalidInput("There is nothing to change.", pointer="/")
    return _answer(await breaches.update(author_of(caller), breach, values))
