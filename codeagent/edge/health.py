"""Health, version and metrics: for whoever runs this, without a key."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from codeagent import __version__
from codeagent.edge.context import Context
from codeagent.errors import CodeAgentError
from codeagent.telemetry import metrics

router = APIRouter(tags=["operations"])
CHECK_SECONDS = 2.0


@router.get("/livez", summary="Whether the process answers")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Whether requests can be served", responses={503: {"description": "Not now."}})
@router.get("/startupz", summary="Whether the process has started", responses={503: {"description": "Not yet."}})
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
async def version() -> dict[str, str]:
    return {"version": __version__}


@router.get("/metrics", summary="Metrics in Prometheus' text format", response_class=Response)
async def exposition() -> Response:
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")
