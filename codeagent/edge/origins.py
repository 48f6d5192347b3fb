"""The client of a request, as far as it is told who it is."""

from __future__ import annotations

from uuid import UUID

import structlog
from fastapi import Request

from codeagent.identity.origin import Origin
from codeagent.telemetry.traces import current_traceparent


def origin_of(request: Request) -> Origin:
    """The address is that of the connection's other end."""
    request_id = UUID(structlog.contextvars.get_contextvars()["request_id"])
    return Origin(request.client.host if request.client is not None else "", request_id, current_traceparent())
