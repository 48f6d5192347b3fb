"""Tenants' quotas as rows, each change of one written together with its fact."""

from __future__ import annotations

from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.ids import sandbox_quota_stream
from codeagent.messages.quota_events import SandboxQuotaSet
from codeagent.quotas.gate import QuotaGate
from codeagent.quotas.quota import SandboxQuota


class SandboxQuotas:
    """`database` works under the edge's role. `gate` holds new runs to them."""

    def __init__(self, database: Database, defaults: SandboxQuota = SandboxQuota()) -> None:  # noqa: B008  frozen
        self._control = ControlPlane(database)
        self.gate = QuotaGate(database, defaults)

    async def put(self, author: Author, quota: SandboxQuota, version: int) -> None:
        """Sets the quota of the author's tenant, which is at `version` and at 0 if it has none. Raises
        `VersionMismatch` where it has changed since it was read."""
        async with self._control.change(author) as change:
            row = await change.row(
                """INSERT INTO sandbox_quotas AS q (tenant_id, version, concurrent_sandboxes, cpu_seconds_per_day,
                                                    gib_hours_per_day)
                   SELECT $1, 1, $3, $4, $5 WHERE $2 = 0 OR EXISTS (SELECT FROM sandbox_quotas WHERE tenant_id = $1)
                   ON CONFLICT (tenant_id) DO UPDATE SET version = q.version + 1, updated_at = clock_timestamp(),
                       concurrent_sandboxes = excluded.concurrent_sandboxes,
                       cpu_seconds_per_day = excluded.cpu_seconds_per_day,
                       gib_hours_per_day = excluded.gib_hours_per_day
                   WHERE q.version = $2 RETURNING version""",
                author.tenant_id,
                version,
                quota.concurrent_sandboxes,
                quota.cpu_seconds_per_day,
                quota.gib_hours_per_day,
            )
            fact = SandboxQuotaSet(
                concurrent_sandboxes=quota.concurrent_sandboxes,
                cpu_seconds_per_day=quota.cpu_seconds_per_day,
                gib_hours_per_day=quota.gib_hours_per_day,
            )
            await change.record(sandbox_quota_stream(author.tenant_id), row["version"], fact)
        self.gate.forget(author.tenant_id)
