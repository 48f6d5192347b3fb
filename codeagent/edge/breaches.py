"""`/v1/privacy/breaches`: what went wrong with personal data, and the time that is left to say so."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import NO_STORE, answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import Administrator, Context
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.privacy_models import BreachBody, BreachModel, BreachPage, BreachPatch
from codeagent.edge.problems import errors_of
from codeagent.errors import InvalidInput
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.privacy.breaches import PREFIX, Breach, Breaches, BreachOrder

router = APIRouter(prefix="/v1/privacy/breaches", tags=["privacy"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "",
    status_code=201,
    response_model=BreachModel,
    summary="Record a breach of personal data",
    responses={200: {"model": BreachModel, "description": "A repeat: the breach was recorded before."}},
)
async def record_breach(
    body: BreachBody,
    context: Context,
    caller: Administrator,
    key: RequestKey = None,
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
    breach, repeated = await Breaches(context.database).record(author_of(caller), order)
    location = f"/v1/privacy/breaches/{breach.id}"
    return made(BreachModel.of(breach), location, repeated=repeated, version=breach.version, cache=NO_STORE)


def _answer(breach: Breach) -> Response:
    return answer(BreachModel.of(breach), version=breach.version, cache=NO_STORE)


@router.get("", response_model=BreachPage, summary="List breaches, newest first")
async def list_breaches(
    context: Context,
    caller: Administrator,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Closed ones included."""
    found, following = await Breaches(context.database).page(caller.tenant_id, cursor, limit)
    page = BreachPage(items=[BreachModel.of(breach) for breach in found], next_cursor=following)
    return page_answer(page, "/v1/privacy/breaches", limit=limit, cursor=following, cache=NO_STORE)


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
    body: BreachPatch | None = None,
    if_match: IfMatch = None,
) -> Response:
    """Above all when the authority and the persons were told. A closed one changes no more."""
    breaches = Breaches(context.database)
    breach = await breaches.find(caller.tenant_id, breach_id)
    check_match(if_match, breach.version)
    values = body.values() if body is not None else {}
    if not values:
        raise InvalidInput("There is nothing to change.", pointer="/")
    return _answer(await breaches.update(author_of(caller), breach, values))
