"""What becomes of tenants' quotas."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from codeagent.messages.envelope import Event


class SandboxQuotaSet(Event):
    """What the tenant may use of sandboxes from now on. Of what is None the installation's default counts."""

    NAME: ClassVar[str] = "tenant.sandbox_quota_set"

    concurrent_sandboxes: int | None
    cpu_seconds_per_day: int | None
    gib_hours_per_day: Decimal | None
