"""`/v1/admin/providers/{provider}/credentials`: keys of model providers, written here and read by workers alone."""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Self

import orjson
from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BaseModel, Field, SecretStr, model_validator

from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import NO_STORE, answer, made
from codeagent.edge.authors import operator_of
from codeagent.edge.context import Context, EdgeContext, Operator
from codeagent.edge.models import Strict
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.errors import NotFound
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.provider_registry.credentials import PREFIX, Credential, CredentialOrder, CredentialState
from codeagent.providers.registry import BUILTIN

router = APIRouter(
    prefix="/v1/admin/providers/{provider}/credentials",
    tags=["administration"],
    responses=errors_of(400, 401, 403, 404, 422, 503),
)
ProviderName = Annotated[str, Path(description="A provider as the installation's configuration names it.")]
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class CredentialBody(Strict):
    """A key to store. It is sent to the provider and shown to nobody, ever."""

    label: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", description="What tells it apart.")
    secret: SecretStr = Field(
        min_length=1,
        max_length=8_192,
        description="The provider's API key, of visible ASCII characters.",
        json_schema_extra={"pattern": r"^[\x21-\x7e]+$"},
    )

    @model_validator(mode="after")
    def _plain(self) -> Self:
        text = self.secret.get_secret_value()
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise ValueError("the secret has characters other than visible ASCII")
        return self

    def fingerprint(self, repeat: str) -> str:
        """The same for requests under the Idempotency-Key `repeat` that say the same. Without that, which is stored
        nowhere, no guess at the secret can be checked against it."""
        said = orjson.dumps([self.label, self.secret.get_secret_value()])
        return hmac.new(repeat.encode(), said, sha256).hexdigest()


class CredentialModel(BaseModel):
    """A stored key without the key. `last_used_at` is about a minute exact; `version` is its ETag."""

    id: str
    provider: str
    label: str
    state: CredentialState
    version: int
    created_by: str
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, credential: Credential) -> Self:
        return cls(**{name: getattr(credential, name) for name in cls.model_fields})


class CredentialPage(BaseModel):
    items: list[CredentialModel]
    next_cursor: str | None


def _checked(provider: str) -> str:
    """Raises `NotFound` for what no provider can be called."""
    if _NAME.fullmatch(provider) is None:
        raise NotFound("There is no such provider.")
    return provider


def _is_configured(context: EdgeContext, provider: str) -> bool:
    return any(offer.name == provider for offer in context.offers.providers() if offer.name != BUILTIN)


@router.post(
    "",
    status_code=201,
    response_model=CredentialModel,
    summary="Store a key of a provider",
    responses={
        200: {"model": CredentialModel, "description": "A repeat: the key was stored before."},
        **errors_of(501),
    },
)
async def add_credential(
    provider: ProviderName, body: CredentialBody, context: Context, caller: Operator, key: RequestKey = None
) -> Response:
    """Workers use the newest that is active first, from a few seconds on, without a restart; the others stand in where
    the provider refuses it."""
    repeat = idempotency_key(key)
    if not _is_configured(context, provider):
        raise NotFound("There is no such provider.")
    route = f"POST /v1/admin/providers/{provider}/credentials"
    order = CredentialOrder(
        id=typed_id(PREFIX, derived_uuid(caller.tenant_id, caller.id, route, repeat)),
        provider=provider,
        label=body.label,
        secret=body.secret.get_secret_value(),
        fingerprint=body.fingerprint(repeat),
    )
    added, repeated = await context.credentials.add(operator_of(caller), order)
    location = f"/v1/admin/providers/{provider}/credentials/{added.id}"
    model = CredentialModel.of(added)
    return made(model, location, repeated=repeated, version=added.version, cache=NO_STORE)


@router.get("", response_model=CredentialPage, summary="List a provider's stored keys, newest first")
async def list_credentials(
    provider: ProviderName, context: Context, caller: Operator, limit: Limit = 50, cursor: PageCursor = None
) -> Response:
    """Without the keys; revoked ones included, and those of a provider that is not configured any more."""
    found, following = await context.credentials.page(_checked(provider), cursor, limit)
    if not found and not _is_configured(context, provider):
        raise NotFound("There is no such provider.")
    page = CredentialPage(items=[CredentialModel.of(each) for each in found], next_cursor=following)
    path = f"/v1/admin/providers/{provider}/credentials"
    return page_answer(page, path, limit=limit, cursor=following, cache=NO_STORE)


@router.get("/{credential_id}", response_model=CredentialModel, summary="A stored key, without the key")
async def get_credential(provider: ProviderName, credential_id: str, context: Context, caller: Operator) -> Response:
    """With the ETag that revoking it takes."""
    found = await context.credentials.find(_checked(provider), credential_id)
    return answer(CredentialModel.of(found), version=found.version, cache=NO_STORE)


@router.delete("/{credential_id}", status_code=204, summary="Revoke a stored key", responses=errors_of(412, 428))
async def revoke_credential(
    provider: ProviderName, credential_id: str, context: Context, caller: Operator, if_match: IfMatch = None
) -> Response:
    """For good: the installation forgets the key at once, and five seconds later at most no worker begins a call with
    it. Calls that are under way end as they would."""
    found = await context.credentials.find(_checked(provider), credential_id)
    check_match(if_match, found.version)
    await context.credentials.revoke(operator_of(caller), found)
    return Response(status_code=204)
