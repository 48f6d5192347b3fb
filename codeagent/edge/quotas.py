"""`/v1/quotas`: which limits of traffic and of sandboxes apply to the caller now, and what is left of them."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.context import Caller, Context
from codeagent.edge.problems import errors_of
from codeagent.edge.tenant_quotas import SandboxUseModel

router = APIRouter(prefix="/v1", tags=["quotas"], responses=errors_of(401, 403, 503))


class RateModel(BaseModel):
    """At most `requests` in any `window_seconds`: of one credential, or of its whole tenant."""

    name: str
    scope: Literal["credential", "tenant"]
    requests: int
    window_seconds: int
    remaining: int
    resets_in_seconds: int = Field(description="Until the window ends that the count is of.")


class ConcurrencyModel(BaseModel):
    """At most `limit` at once of the tenant, on each edge; `in_use` are those on the edge that answers."""

    name: str
    limit: int
    in_use: int


class QuotaModel(BaseModel):
    rates: list[RateModel]
    concurrency: list[ConcurrencyModel]
    sandboxes: SandboxUseModel


@router.get("/quotas", response_model=QuotaModel, summary="Which limits apply to me now")
async def get_quotas(context: Context, caller: Caller) -> Response:
    """Rates by kind of request, as `RateLimit` and `RateLimit-Policy` tell them, and how much may be open at once;
    and what the tenant may use of sandboxes, and has used today.

    What money and tokens are left tells `/v1/budgets`.
    """
    policy, load = context.traffic.policy, context.traffic.load
    found = context.traffic.rates.standings(caller.credential_id, caller.tenant_id)
    rates = [
        RateModel(
            name=each.name,
            scope="tenant" if each.of_tenant else "credential",
            requests=each.rate.requests,
            window_seconds=each.rate.seconds,
            remaining=each.left,
            resets_in_seconds=each.resets_in,
        )
        for each in found
    ]
    at_once = [
        ConcurrencyModel(
            name="requests-at-once", limit=policy.tenant_in_flight, in_use=load.of_tenant(caller.tenant_id)
        ),
        ConcurrencyModel(name="streams", limit=policy.tenant_streams, in_use=load.streams_of(caller.tenant_id)),
    ]
    sandboxes = SandboxUseModel.of(await context.sandbox_quotas.gate.standing(caller.tenant_id))
    shown = QuotaModel(rates=rates, concurrency=at_once, sandboxes=sandboxes)
    return answer(shown, cache=NO_STORE)
