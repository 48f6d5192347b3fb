"""`/v1/admin`: the whole installation, for its operators alone.

They hold the scope `operator`, which a key in the operators' own file may have and no credential of a tenant can.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from codeagent import __version__
from codeagent.edge.answers import NO_STORE, answer
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, Operator
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.problems import errors_of
from codeagent.errors import Rejected
from codeagent.eventlog.facts import Author
from codeagent.eventlog.inspection import backlogs, projection_states, schema_version
from codeagent.eventlog.migrations import HEAD
from codeagent.identity.principal import Principal
from codeagent.identity.sessions import SessionPolicy
from codeagent.identity.tenants import Tenant, find_tenant, list_tenants, resume_tenant, suspend_tenant

router = APIRouter(prefix="/v1/admin", tags=["administration"], responses=errors_of(400, 401, 403, 404, 422, 503))


class TenantModel(BaseModel):
    """`suspended_at` is null for one that is not suspended."""

    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None

    @classmethod
    def of(cls, tenant: Tenant) -> TenantModel:
        return cls(id=tenant.id, name=tenant.name, created_at=tenant.created_at, suspended_at=tenant.suspended_at)


class TenantPage(BaseModel):
    """In the order of their ids. `next_cursor` continues the list; null at its end."""

    items: list[TenantModel]
    next_cursor: str | None


class ProjectionModel(BaseModel):
    """A read model and its place in the log."""

    name: str
    position: str
    behind_seconds: float = Field(description="Age of the oldest event that it has not read; 0 where there is none.")


class ProjectionList(BaseModel):
    items: list[ProjectionModel]


class BacklogModel(BaseModel):
    """Rows of one ledger: effects of a kind that are not yet answered, or messages of a topic on their way."""

    ledger: str
    kind: str
    waiting: int
    overdue: int
    oldest_seconds: float


class BacklogList(BaseModel):
    items: list[BacklogModel]


class InstallationModel(BaseModel):
    """What is running, and whether the database is at the version that it needs."""

    version: str
    migration: str
    expected_migration: str
    current: bool


def _json(model: BaseModel) -> Response:
    return answer(model, cache=NO_STORE)


def _name(tenant_id: str) -> str:
    """Raises `Rejected` for what no id can be."""
    if len(tenant_id) > 200 or "\x00" in tenant_id:
        raise Rejected("This is no id of a tenant.", code="malformed_request")
    return tenant_id


@router.get("/tenants", response_model=TenantPage, summary="List all tenants")
async def get_tenants(
    context: Context,
    caller: Operator,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> Response:
    """Those that have users. Tenants that the key file alone knows of are not among them."""
    found, following = await list_tenants(context.database, _name(cursor or ""), limit)
    page = TenantPage(items=[TenantModel.of(tenant) for tenant in found], next_cursor=following)
    return page_answer(page, "/v1/admin/tenants", limit=limit, cursor=following, cache=NO_STORE)


@router.get("/tenants/{tenant_id}", response_model=TenantModel, summary="One tenant of the installation")
async def get_tenant(tenant_id: str, context: Context, caller: Operator) -> Response:
    """Its name, and whether it is suspended."""
    return _json(TenantModel.of(await find_tenant(context.database, _name(tenant_id))))


def _acting_on(caller: Principal, tenant_id: str) -> Author:
    """The operator as the author of a fact of the tenant that it is about."""
    return replace(author_of(caller), tenant_id=tenant_id)


@router.post("/tenants/{tenant_id}/suspend", response_model=TenantModel, summary="Suspend a tenant")
async def suspend(tenant_id: str, context: Context, caller: Operator) -> Response:
    """Its logins, tokens and API keys are refused within a second, until it is resumed. Keys of the operators' file
    are not. One that is suspended already stays so."""
    tenant = await find_tenant(context.database, _name(tenant_id))
    if tenant.suspended_at is None:
        await suspend_tenant(context.database, tenant.id, SessionPolicy(), _acting_on(caller, tenant.id))
    return _json(TenantModel.of(await find_tenant(context.database, tenant.id)))


@router.post("/tenants/{tenant_id}/resume", response_model=TenantModel, summary="Resume a suspended tenant")
async def resume(tenant_id: str, context: Context, caller: Operator) -> Response:
    """Its members may log in again, and its API keys work. One that is not suspended stays so."""
    tenant = await find_tenant(context.database, _name(tenant_id))
    if tenant.suspended_at is not None:
        await resume_tenant(context.database, tenant.id, _acting_on(caller, tenant.id))
    return _json(TenantModel.of(await find_tenant(context.database, tenant.id)))


@router.get("/projections", response_model=ProjectionList, summary="How far the read models are")
async def get_projections(context: Context, caller: Operator) -> Response:
    """Each with its place in the log. A second behind is usual."""
    found = await projection_states(context.database)
    items = [
        ProjectionModel(name=each.name, position=str(each.cursor), behind_seconds=each.behind_seconds) for each in found
    ]
    return _json(ProjectionList(items=items))


@router.get("/backlog", response_model=BacklogList, summary="What waits in the ledgers")
async def get_backlog(context: Context, caller: Operator) -> Response:
    """Of all tenants together. What is long overdue has no worker, or no broker."""
    found = await backlogs(context.database)
    items = [
        BacklogModel(
            ledger=each.ledger,
            kind=each.kind,
            waiting=each.waiting,
            overdue=each.overdue,
            oldest_seconds=each.oldest_seconds,
        )
        for each in found
    ]
    return _json(BacklogList(items=items))


@router.get("/installation", response_model=InstallationModel, summary="What is running here")
async def get_installation(context: Context, caller: Operator) -> Response:
    """The version of this edge, and the migration that the database is at."""
    migration = await schema_version(context.database)
    return _json(
        InstallationModel(version=__version__, migration=migration, expected_migration=HEAD, current=migration == HEAD)
    )
