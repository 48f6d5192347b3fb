"""The caller as the author of a control-plane change."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from uuid import UUID

import structlog

from codeagent.eventlog.facts import Author
from codeagent.identity.principal import Principal
from codeagent.messages.ids import INSTALLATION
from codeagent.telemetry.traces import current_traceparent

CLIENT_ADDRESS: ContextVar[str | None] = ContextVar("client_address", default=None)
"""Where the request at hand comes from, as its socket or a trusted proxy tells. Not among what logs carry."""


def author_of(caller: Principal) -> Author:
    """Facts of one request share its id (`X-Request-Id`) as their correlation."""
    request_id = UUID(structlog.contextvars.get_contextvars()["request_id"])
    return Author(caller.tenant_id, caller.type, caller.id, request_id, current_traceparent(), CLIENT_ADDRESS.get())


def operator_of(caller: Principal) -> Author:
    """Of a fact about the installation: no tenant's log has it."""
    return replace(author_of(caller), tenant_id=INSTALLATION)
