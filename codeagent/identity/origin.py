"""Where a request for credentials comes from."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from codeagent.eventlog.facts import Author


@dataclass(frozen=True, slots=True)
class Origin:
    """A client's address, kept by nobody but as a digest, and the request that its facts are correlated by."""

    address: str
    request_id: UUID
    traceparent: str | None = None

    def author(self, tenant_id: str, user_id: str) -> Author:
        """The user, who is known by now, as the author of a fact."""
        return Author(tenant_id, "app_user", user_id, self.request_id, self.traceparent)
