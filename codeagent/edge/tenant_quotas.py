"""`/v1/admin/tenants/{id}/sandbox-quota`: what operators let a tenant use of sandboxes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from codeagent.edge.amounts import Amount
from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, EdgeContext, Operator
from codeagent.edge.models import NO_BOOLEAN, Strict
from codeagent.edge.parameters import IfMatch
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.errors import NotFound
from codeagent.identity.tenants import find_tenant
from codeagent.quotas.gate import QuotaStanding
from codeagent.quotas.quota import SandboxQuota, resets_at

router = APIRouter(
    prefix="/v1/admin/tenants", tags=["administration"], responses=errors_of(400, 401, 403, 404, 422, 503)
)
LONGEST_ID = 200
GibHours = Annotated[Decimal, Amount(most=1_000_000, places=3)]


class SandboxQuotaBody(Strict):
    """A tenant's own quota, as a whole: of what is left out, or null, the installation's default counts."""

    concurrent_sandboxes: Annotated[int, Field(ge=1, le=100_000), NO_BOOLEAN] | None = None
    cpu_seconds_per_day: Annotated[int, Field(ge=1, le=10**12), NO_BOOLEAN] | None = None
    gib_hours_per_day: GibHours | None = None

    def quota(self) -> SandboxQuota:
        return SandboxQuota(**self.model_dump())


class SandboxUseModel(BaseModel):
    """What counts for the tenant, its own quota or else the default, and what its commands have used today (UTC)."""

    concurrent_sandboxes: int | None
    cpu_seconds_per_day: int | None
    gib_hours_per_day: str | None
    cpu_seconds_used: float
    gib_hours_used: float
    resets_at: datetime

    @classmethod
    def of(cls, standing: QuotaStanding) -> SandboxUseModel:
        return cls(
            **_shown(standing.quota),
            cpu_seconds_used=round(float(standing.used.cpu_seconds), 3),
            gib_hours_used=round(float(standing.used.gib_hours), 6),
            resets_at=resets_at(),
        )


class SandboxQuotaModel(BaseModel):
    """A tenant's own quota at its `version`, null where it has none, and how it stands."""

    version: int
    concurrent_sandboxes: int | None
    cpu_seconds_per_day: int | None
    gib_hours_per_day: str | None
    standing: SandboxUseModel

    @classmethod
    def of(cls, standing: QuotaStanding) -> SandboxQuotaModel:
        return cls(version=standing.version, **_shown(standing.own), standing=SandboxUseModel.of(standing))


def _shown(quota: SandboxQuota) -> dict[str, object]:
    hours = quota.gib_hours_per_day
    return {**dict(quota), "gib_hours_per_day": None if hours is None else f"{hours:f}"}


@router.get(
    "/{tenant_id}/sandbox-quota", response_model=SandboxQuotaModel, summary="What a tenant may use of sandboxes"
)
async def get_sandbox_quota(tenant_id: str, context: Context, caller: Operator) -> Response:
    """With what it has used today, and the ETag that setting it takes."""
    return _answer(await _standing(context, tenant_id))


@router.put(
    "/{tenant_id}/sandbox-quota",
    response_model=SandboxQuotaModel,
    summary="Set what a tenant may use of sandboxes",
    responses=errors_of(412, 428),
)
async def put_sandbox_quota(
    tenant_id: str, body: SandboxQuotaBody, context: Context, caller: Operator, if_match: IfMatch = None
) -> Response:
    """As a whole. It holds for commands at once where the tenant had one, and within five seconds where it had none or
    for runs on other edges."""
    standing = await _standing(context, tenant_id)
    check_match(if_match, standing.version)
    author = replace(author_of(caller), tenant_id=tenant_id)
    await context.sandbox_quotas.put(author, body.quota(), standing.version)
    return _answer(await _standing(context, tenant_id))


async def _standing(context: EdgeContext, tenant_id: str) -> QuotaStanding:
    """Raises `NotFound`."""
    if len(tenant_id) > LONGEST_ID or "\x00" in tenant_id:
        raise NotFound("There is no such tenant.")
    await find_tenant(context.database, tenant_id)
    return await context.sandbox_quotas.gate.standing(tenant_id)


def _answer(standing: QuotaStanding) -> Response:
    return answer(SandboxQuotaModel.of(standing), version=standing.version, cache=NO_STORE)
