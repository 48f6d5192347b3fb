"""From the log to deliveries: one of every event that can be told for every webhook that wants it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from codeagent.eventlog.database import Connection, Database, Row
from codeagent.eventlog.follower import LogFollower
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.webhooks.deliveries import new_delivery_id
from codeagent.webhooks.filters import is_public, wants


class DeliveryDispatcher(LogFollower):
    """Calls `made` after a commit that has made deliveries. Their order is not promised: each is tried when it is
    due."""

    NAME = "webhooks"
    LOCK = 0x7765626873

    def __init__(
        self, database: Database, log_reader: EventLog, made: Callable[[], None], *, idle_seconds: float = 0.25
    ) -> None:
        super().__init__(database, log_reader, idle_seconds=idle_seconds)
        self._made = made
        self._count = 0

    async def catch_up(self, most: int = 500) -> int:
        self._count = 0
        read = await super().catch_up(most)
        if self._count:
            self._made()
        return read

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        events = [event for event in page if is_public(event.type, event.stream_id)]
        webhooks = await self._webhooks(connection, {event.tenant_id for event in events})
        wanted = [
            (webhook["id"], event)
            for event in events
            for webhook in webhooks[event.tenant_id]
            if event.transaction_id >= int(webhook["since"]) and wants(webhook["event_types"], event.type)
        ]
        if wanted:
            await self._insert(connection, wanted)
            self._count = len(wanted)

    async def _webhooks(self, connection: Connection, tenants: set[str]) -> dict[str, list[Row]]:
        rows = await connection.fetch(
            """SELECT id, tenant_id, event_types, since::text AS since FROM webhooks
               WHERE status = 'enabled' AND tenant_id = ANY ($1)""",
            sorted(tenants),
        )
        found: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            found[row["tenant_id"]].append(row)
        return found

    async def _insert(self, connection: Connection, wanted: Sequence[tuple[str, StoredEvent]]) -> None:
        await connection.execute(
            """INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, stream_id,
                                               stream_version)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[],
                                    $7::bigint[])
               ON CONFLICT (webhook_id, event_id) DO NOTHING""",
            [new_delivery_id() for _ in wanted],
            [event.tenant_id for _, event in wanted],
            [webhook_id for webhook_id, _ in wanted],
            [event.id for _, event in wanted],
            [event.type for _, event in wanted],
            [event.stream_id for _, event in wanted],
            [event.version for _, event in wanted],
        )
