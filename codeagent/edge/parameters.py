"""Headers of requests, as the OpenAPI document describes them.

Routes that are asked for often read them from the request themselves: the framework's own header parameters cost more
than all limits of an edge together.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header


def _header(name: str, description: str, example: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **schema},
        "example": example,
    }


IDEMPOTENCY_KEY = {
    **_header(
        "Idempotency-Key",
        "Names this request, as an RFC 9651 string or bare: repeats with the same body are carried out once.",
        '"5c6ff0d5-6e0e-4d2c-9d53-8f1a3f5b6a01"',
        maxLength=257,
    ),
    "required": True,
}
PREFER = _header(
    "Prefer",
    "RFC 7240: `wait=N` to wait up to N (at most 60) seconds for the run's end, `respond-async`, `return=minimal`.",
    "wait=30",
)
IF_NONE_MATCH = _header("If-None-Match", "ETags that the client has: 304 if one of them is current.", '"7"')
IF_MATCH = _header("If-Match", "ETag of the version that the decision was made on: 412 if it is not current.", '"7"')
IF_MATCH_REQUIRED = {**IF_MATCH, "required": True}


IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="ETag of the version that the change was decided on.")
]
RequestKey = Annotated[str | None, Header(alias="Idempotency-Key", description="Names this request.")]


def taking(*headers: dict[str, Any]) -> dict[str, Any]:
    """For a route's `openapi_extra`."""
    return {"parameters": list(headers)}
