"""Whether a tenant's quota lets one more run begin."""

from __future__ import annotations

import time
from dataclasses import dataclass
from decimal import Decimal

from codeagent import clock
from codeagent.errors import Exhausted
from codeagent.eventlog.database import Database
from codeagent.quotas.quota import SandboxQuota, Used, resets_at, used_up
from codeagent.telemetry import metrics

MOST_REMEMBERED = 100_000
NEAR = Decimal("0.8")
"""From this share on, a tenant's use is looked at for every run."""

_STANDING = """
    SELECT coalesce(q.version, 0) AS version, q.concurrent_sandboxes, q.cpu_seconds_per_day, q.gib_hours_per_day,
           coalesce(d.cpu_ms, 0)::bigint AS cpu_ms, coalesce(d.memory_mib_ms, 0)::bigint AS memory_mib_ms
    FROM (SELECT 1) one
    LEFT JOIN sandbox_quotas q ON q.tenant_id = $1
    CROSS JOIN LATERAL (
        SELECT sum(u.cpu_ms) AS cpu_ms, sum(u.memory_mib_ms) AS memory_mib_ms FROM usage_by_day u
        WHERE u.tenant_id = $1 AND u.day = (clock_timestamp() AT TIME ZONE 'UTC')::date) d"""


class QuotaUsedUp(Exhausted):
    """Not to be tried again before the day ends, or an operator changes the quota."""


@dataclass(frozen=True, slots=True)
class QuotaStanding:
    """`own` is the tenant's row, at `version` (0: it has none), and `quota` what counts: that, else the defaults."""

    version: int
    own: SandboxQuota
    quota: SandboxQuota
    used: Used


class QuotaGate:
    """Asks the database for each run of a tenant that has used most of its quota. That another one has not is
    remembered for `remembered_seconds`, and costs no query meanwhile: a tenant that uses a fifth of its quota in that
    time, or whose quota is made smaller, is refused that much later."""

    def __init__(self, database: Database, defaults: SandboxQuota, *, remembered_seconds: float = 5.0) -> None:
        self._database = database
        self._defaults = defaults
        self._remembered = remembered_seconds
        self._free: dict[str, float] = {}
        """Tenants that are far from their quota, and until when that is believed."""

    async def admit(self, tenant_id: str) -> None:
        """Raises `QuotaUsedUp` where the tenant's commands have used what they may today."""
        now = time.monotonic()
        if self._free.get(tenant_id, 0.0) > now:
            return
        standing = await self.standing(tenant_id)
        name, share = standing.used.share_of(standing.quota)
        if share >= 1:
            metrics.SANDBOX_QUOTA_REFUSALS.labels(name, "run").inc()
            seconds = max(1, int((resets_at() - clock.now()).total_seconds()))
            raise QuotaUsedUp(used_up(name), retry_after=seconds, policies=(name,))
        if share < NEAR:
            if len(self._free) >= MOST_REMEMBERED:
                self._free.clear()
            self._free[tenant_id] = now + self._remembered

    async def standing(self, tenant_id: str) -> QuotaStanding:
        """`database` may work under the edge's role, which then sees the tenant's rows alone."""
        [row] = await self._database.fetch(_STANDING, tenant_id, tenant=tenant_id)
        own = SandboxQuota(**{name: row[name] for name in SandboxQuota.model_fields})
        used = Used.of(row["cpu_ms"], row["memory_mib_ms"])
        return QuotaStanding(row["version"], own, own.over(self._defaults), used)

    def forget(self, tenant_id: str) -> None:
        """Its quota has changed, and is looked at anew."""
        self._free.pop(tenant_id, None)
