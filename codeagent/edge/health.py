"""Health, version and metrics: for whoever runs this, without a key."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from codeagent import __version__
from codeagent.edge.context import Context
from codeagent.errors import CodeAgentError
from codeagent.telemetry import metrics

router = APIRouter(tags=["operations"])
CHECK_SECONDS = 2.0


class Liveness(BaseModel):
    """Always `ok`: a process that is not does not answer."""

    status: str = "ok"


class Readiness(BaseModel):
    """`ok` or `unavailable`, and what holds by the name of each check."""

    status: str
    checks: dict[str, bool]


class Version(BaseModel):
    """The release that answers."""

    version: str


@router.get("/livez", summary="Whether the process answers")
async def livez() -> Liveness:
    """For whoever restarts processes that do not answer."""
    return Liveness()


_NOT_NOW: dict[int | str, dict[str, Any]] = {503: {"description": "Not now.", "model": Readiness}}


@router.get(
    "/startupz",
    name="startupz",
    response_model=Readiness,
    summary="Whether the process has started",
    responses=_NOT_NOW,
)
@router.get("/readyz", response_model=Readiness, summary="Whether requests can be served", responses=_NOT_NOW)
async def readyz(context: Context) -> JSONResponse:
    """503 while the database or the broker is away; it recovers by itself."""
    names = list(context.checks)
    results = await asyncio.gather(*(_holds(context, name) for name in names))
    ready = all(results)
    body = {"status": "ok" if ready else "unavailable", "checks": dict(zip(names, results, strict=True))}
    return JSONResponse(body, 200 if ready else 503, {"Retry-After": "2"} if not ready else None)


async def _holds(context: Context, name: str) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await context.checks[name]()
    except (CodeAgentError, TimeoutError, OSError):
        return False


@router.get("/version", summary="What is running")
async def version() -> Version:
    """The version of the program, which is also the one of this document."""
    return Version(version=__version__)


@router.get(
    "/metrics",
    summary="Metrics in Prometheus' text format",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "codeagent_event_loop_lag_seconds 0.0002\n"}}}},
)
async def exposition() -> Response:
    """What this process has counted. No label holds a run, user or tenant."""
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")
