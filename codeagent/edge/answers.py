"""Answers in JSON: how they may be kept, and how a repeat of a request that has made something is told."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import Response
from pydantic import BaseModel

from codeagent.edge.preconditions import etag
from codeagent.telemetry import metrics

PRIVATE = "private, no-cache"
"""Cache-Control of what its tenant may keep, and ask for again with the ETag."""
NO_STORE = "no-store"
"""Of secrets and personal data."""


def answer(
    model: BaseModel,
    status: int = 200,
    *,
    version: int | None = None,
    cache: str = PRIVATE,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The model, with the ETag of its `version` where it has one."""
    told = {"Cache-Control": cache, **(headers or {})}
    if version is not None:
        told["ETag"] = etag(version)
    return Response(model.model_dump_json(), status, told, media_type="application/json")


def made(
    model: BaseModel,
    location: str,
    *,
    repeated: bool,
    version: int | None = None,
    status: int = 201,
    cache: str = PRIVATE,
) -> Response:
    """What a request has made, at `location`; 200 and `Idempotent-Replayed` where an earlier one under the same
    Idempotency-Key had made it."""
    headers = {"Location": location}
    if repeated:
        headers["Idempotent-Replayed"] = "true"
        metrics.IDEMPOTENCY_REPLAYS.inc()
    return answer(model, 200 if repeated else status, version=version, cache=cache, headers=headers)
