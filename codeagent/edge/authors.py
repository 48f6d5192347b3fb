"""The caller as the author of a control-plane change."""

from __future__ import annotations

from uuid import UUID

import structlog

from codeagent.eventlog.facts import Author
from codeagent.identity.principal import Principal
from codeagent.telemetry.traces import current_traceparent


def author_of(caller: Principal) -> Author:
    """Facts of one request share its id (`X-Request-Id`) as their correlation."""
    request_id = UUID(structlog.contextvars.get_contextvars()["request_id"])
    return Author(caller.tenant_id, caller.type, caller.id, request_id, current_traceparent())
