"""`/v1/api-keys`: make, list, look at, rotate and revoke keys."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter
from fastapi.responses import Response

from codeagent.clock import new_uuid
from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import NO_STORE, answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, EdgeContext, KeyWriter
from codeagent.edge.key_models import KeyBody, KeyModel, KeyPage, MadeKeyModel, RotateBody
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.errors import NotFound, Rejected
from codeagent.identity.api_keys import NONE_SUCH, ApiKey, KeyOrder, MadeKey
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import ALL, Scope
from codeagent.messages.ids import derived_uuid, typed_id

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "",
    status_code=201,
    response_model=MadeKeyModel,
    summary="Make an API key",
    responses={
        200: {"model": MadeKeyModel, "description": "A repeat: the key was made before, and is not shown again."}
    },
)
async def create_key(
    body: KeyBody,
    context: Context,
    caller: KeyWriter,
    key: RequestKey = None,
) -> Response:
    """The answer shows the key, this once. A repeat under the same Idempotency-Key makes no second one and is answered
    200 with `key: null`: whoever lost the first answer revokes the key and makes another.
    """
    _check_scopes(caller, body.scopes)
    repeat = idempotency_key(key)
    order = KeyOrder(
        id=typed_id("key", derived_uuid(caller.tenant_id, caller.id, "POST /v1/api-keys", repeat)),
        principal_id=caller.id,
        name=body.name,
        scopes=body.scopes,
        networks=body.networks,
        expires_at=body.expires_at,
        fingerprint=body.fingerprint(),
    )
    return _made(await context.keys.create(author_of(caller), order))


def _check_scopes(caller: Principal, scopes: frozenset[Scope]) -> None:
    missing = sorted(scopes - (caller.scopes & ALL))
    if missing:
        detail = f"A key may do no more than its maker, who lacks {', '.join(missing)}."
        raise Rejected(detail, code="insufficient_scope", status=403)


def _made(new: MadeKey) -> Response:
    model, location = MadeKeyModel.showing(new), f"/v1/api-keys/{new.key.id}"
    return made(model, location, repeated=new.secret is None, version=new.key.version, cache=NO_STORE)


@router.get("", response_model=KeyPage, summary="List keys, newest first")
async def list_keys(
    context: Context,
    caller: KeyWriter,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """One's own keys, revoked and expired ones included; with the scope `admin` those of the whole tenant."""
    owner = None if caller.may(Scope.ADMIN) else caller.id
    keys, following = await context.keys.page(caller.tenant_id, principal_id=owner, after=cursor, limit=limit)
    page = KeyPage(items=[KeyModel.of(key) for key in keys], next_cursor=following)
    return page_answer(page, "/v1/api-keys", limit=limit, cursor=following)


@router.get("/{key_id}", response_model=KeyModel, summary="A key, without the key")
async def get_key(key_id: str, context: Context, caller: KeyWriter) -> Response:
    """What is known of it, with the ETag that changing it takes."""
    key = await _visible(context, caller, key_id)
    return answer(KeyModel.of(key), version=key.version)


async def _visible(context: EdgeContext, caller: Principal, key_id: str) -> ApiKey:
    """One's own key, or any of the tenant's for an administrator. Another's is not there."""
    key = await context.keys.find(caller.tenant_id, key_id)
    if key.principal_id != caller.id and not caller.may(Scope.ADMIN):
        raise NotFound(NONE_SUCH)
    return key


@router.delete("/{key_id}", status_code=204, summary="Revoke a key", responses=errors_of(412, 428))
async def revoke_key(key_id: str, context: Context, caller: KeyWriter, if_match: IfMatch = None) -> Response:
    """At once: within a second every edge refuses the key and ends the streams that it has opened."""
    key = await _visible(context, caller, key_id)
    check_match(if_match, key.version)
    await context.keys.revoke(author_of(caller), key)
    return Response(status_code=204)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    response_model=MadeKeyModel,
    summary="Replace a key",
    responses=errors_of(409, 412, 428),
)
async def rotate_key(
    key_id: str, context: Context, caller: KeyWriter, body: RotateBody | None = None, if_match: IfMatch = None
) -> Response:
    """Makes a key that may do the same, shown this once, and lets the old one be used for the overlap.

    Only for one's own keys, since whoever has the new key acts for the principal of the old one. A repeat is refused
    with 412, since the key has changed: should the answer be lost, rotate its successor (`replaced_by`).
    """
    wanted = body if body is not None else RotateBody()
    old = await _visible(context, caller, key_id)
    check_match(if_match, old.version)
    if old.principal_id != caller.id:
        raise Rejected("Only its own principal can rotate a key.", code="forbidden", status=403)
    _check_scopes(caller, old.scopes)
    successor = KeyOrder(
        id=typed_id("key", new_uuid()),
        principal_id=old.principal_id,
        name=old.name,
        scopes=old.scopes,
        networks=old.networks,
        expires_at=wanted.expires_at,
        replaces=old.id,
    )
    overlap = timedelta(seconds=wanted.overlap_seconds)
    return _made(await context.keys.rotate(author_of(caller), old, successor, overlap))
