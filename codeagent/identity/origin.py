"""Where a request for credentials comes from."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from codeagent.eventlog.facts import Author


@dataclass(frozen=True, slots=True)
class Origin:
    """A client's address, and the request that its facts are correlated by."""

    address: str
    request_id: UUID
    traceparent: str | None = None

    def author(self, tenant_id: str, caller_id: str, caller_type: str = "app_user") -> Author:
        """The caller, who is known by now, as the author of a fact."""
        return Author(tenant_id, caller_type, caller_id, self.request_id, self.traceparent, self.address)
