"""Claims of sandbox operations, which count against how many their tenant may have at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim, EffectsLedger
from codeagent.messages.envelope import Message


class SandboxLedger(EffectsLedger):
    """What finds no room stays due and is claimed once there is some, the oldest first; other tenants' operations
    pass it. `most_of_tenant` holds where a tenant's own quota says nothing; None: as many as come."""

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        lease: timedelta,
        new_token: Callable[[], UUID],
        most_of_tenant: int | None = None,
    ) -> None:
        super().__init__(database, kind="sandbox", owner=owner, lease=lease, durable_claims=True, new_token=new_token)
        self._most_of_tenant = most_of_tenant

    async def _claim_many(self, effect_ids: Sequence[UUID]) -> Sequence[Claim | None]:
        distinct = list(dict.fromkeys(effect_ids))
        rows = await self._database.write(
            "SELECT * FROM claim_sandboxes_v2($1, $2, $3, $4, $5)",
            distinct,
            [self._new_token() for _ in distinct],
            self._owner,
            self._lease,
            self._most_of_tenant,
        )
        return await self._claims_of(rows, effect_ids)

    async def claim_due(self, most: int, *, fresh: bool) -> Sequence[tuple[Claim, Message]]:
        rows = await self._database.write(
            "SELECT * FROM claim_due_sandboxes_v1($1, $2, $3, $4, $5)",
            [self._new_token() for _ in range(most)],
            self._owner,
            self._lease,
            fresh,
            self._most_of_tenant,
        )
        return await self._messages(rows)


async def waiting_for_room(database: Database, most_of_tenant: int | None = None) -> int:
    """How many operations of all tenants wait because of those that are at work, whatever slots workers have."""
    rows = await database.fetch(
        """SELECT coalesce(sum(greatest(0, waiting - greatest(0, most - working))), 0)::bigint AS waiting
           FROM (SELECT coalesce(q.concurrent_sandboxes, $1) AS most,
                        count(*) FILTER (WHERE e.token IS NOT NULL AND e.due_at >= clock_timestamp()) AS working,
                        count(*) FILTER (WHERE e.due_at < clock_timestamp()) AS waiting
                 FROM effects e LEFT JOIN sandbox_quotas q ON q.tenant_id = e.tenant_id
                 WHERE e.kind = 'sandbox' AND NOT e.recorded
                 GROUP BY e.tenant_id, q.concurrent_sandboxes) counted
           WHERE most IS NOT NULL""",
        most_of_tenant,
    )
    return int(rows[0]["waiting"])
