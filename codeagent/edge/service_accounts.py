"""`/v1/service-accounts`: programs that act in the tenant's name."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import NO_STORE, answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import KeyWriter, Users
from codeagent.edge.key_models import Grantable
from codeagent.edge.models import Strict
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import RequestKey
from codeagent.edge.problems import errors_of
from codeagent.errors import InvalidInput
from codeagent.identity.principal import Principal
from codeagent.identity.scopes import ALL, Scope
from codeagent.identity.service_accounts import PREFIX, ServiceAccount
from codeagent.messages.ids import derived_uuid, typed_id

router = APIRouter(
    prefix="/v1/service-accounts", tags=["service accounts"], responses=errors_of(400, 401, 403, 404, 422, 501, 503)
)


class ServiceAccountBody(Strict):
    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["nightly builds"])
    scopes: frozenset[Grantable] = Field(min_length=1, description="What it may do; no more than its maker may.")


class ServiceAccountModel(BaseModel):
    """`id` is the `client_id` for `/oauth2/token`."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime

    @classmethod
    def of(cls, account: ServiceAccount) -> ServiceAccountModel:
        return cls(id=account.id, name=account.name, scopes=sorted(account.scopes), created_at=account.created_at)


class NewServiceAccountModel(ServiceAccountModel):
    """`client_secret` is shown this once; null in the answer to a repeat."""

    client_secret: str | None


class ServiceAccountPage(BaseModel):
    items: list[ServiceAccountModel]
    next_cursor: str | None


def _check(scopes: frozenset[Scope], maker: Principal) -> None:
    beyond = sorted(scopes - (maker.scopes & ALL))
    if beyond:
        raise InvalidInput(f"You may not do {', '.join(beyond)} yourself.", pointer="/scopes", code="scope_not_held")


@router.post(
    "",
    status_code=201,
    response_model=NewServiceAccountModel,
    summary="Make a service account",
    responses={
        200: {"model": NewServiceAccountModel, "description": "A repeat: the account was made before."},
        409: {"description": "The account that this Idempotency-Key made has been disabled (`conflict`)."},
    },
)
async def create(body: ServiceAccountBody, caller: KeyWriter, users: Users, key: RequestKey = None) -> Response:
    """Its secret gets it access tokens from `/oauth2/token` (`client_credentials`). It is shown this once: whoever
    lost the answer disables the account and makes another."""
    named = derived_uuid(caller.tenant_id, caller.id, "POST /v1/service-accounts", idempotency_key(key))
    _check(body.scopes, caller)
    account, secret = await users.service_accounts.create(
        author_of(caller), typed_id(PREFIX, named), body.name, body.scopes
    )
    shown = NewServiceAccountModel(**ServiceAccountModel.of(account).model_dump(), client_secret=secret)
    return made(shown, f"/v1/service-accounts/{account.id}", repeated=secret is None, cache=NO_STORE)


@router.get("", response_model=ServiceAccountPage, summary="List service accounts, newest first")
async def list_accounts(
    caller: KeyWriter,
    users: Users,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Those that can still get tokens."""
    found, following = await users.service_accounts.list(caller.tenant_id, cursor, limit)
    page = ServiceAccountPage(items=[ServiceAccountModel.of(account) for account in found], next_cursor=following)
    return page_answer(page, "/v1/service-accounts", limit=limit, cursor=following)


@router.get("/{account_id}", response_model=ServiceAccountModel, summary="A service account")
async def read(account_id: str, caller: KeyWriter, users: Users) -> Response:
    """What is known of it, without its secret."""
    account = await users.service_accounts.read(caller.tenant_id, account_id)
    return answer(ServiceAccountModel.of(account))


@router.delete("/{account_id}", status_code=204, summary="Disable a service account for good")
async def disable(account_id: str, caller: KeyWriter, users: Users) -> Response:
    """Its secret gets no more tokens, and every edge refuses those it has within a second."""
    await users.service_accounts.disable(author_of(caller), account_id)
    return Response(status_code=204)
