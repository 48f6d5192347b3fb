"""Which artifacts the log names: kept from it, for those who remove the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.follower import LogFollower
from codeagent.eventlog.stored import StoredEvent

MOST_LAG = timedelta(hours=1)
"""Behind the log by more than that, the table is not believed."""
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")


class ArtifactReferences(LogFollower):
    """Keeps the `artifact_references` table: every digest in any fact, whatever it is called there. Some name no
    artifact; that costs a row, and forgetting a field would cost an artifact."""

    NAME = "artifact_references"
    LOCK = 0x61727472

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        named = {(event.tenant_id, bytes.fromhex(digest.decode())) for event in page for digest in _found(event)}
        await connection.executemany(
            "INSERT INTO artifact_references (tenant_id, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING", sorted(named)
        )


def _found(event: StoredEvent) -> list[bytes]:
    return _DIGEST.findall(event.data)


async def named_among(database: Database, tenant_id: str, digests: Sequence[str]) -> set[str]:
    """Which of them a fact names, or a command or answer that is under way; all of them while the table is far behind
    the log."""
    rows = await database.fetch(
        """SELECT EXISTS (
               SELECT FROM events e LEFT JOIN projections p ON p.name = $1
               WHERE (e.transaction_id, e.global_position)
                     > (coalesce(p.transaction_id, '0'::xid8), coalesce(p.global_position, 0))
                     AND e.occurred_at < clock_timestamp() - $2::interval)""",
        ArtifactReferences.NAME,
        MOST_LAG,
    )
    if rows[0][0]:
        return set(digests)
    rows = await database.fetch(
        """SELECT d.digest FROM unnest($2::text[]) AS d (digest)
           WHERE EXISTS (SELECT FROM artifact_references r
                         WHERE r.tenant_id = $1 AND r.digest = decode(substr(d.digest, 8), 'hex'))
              OR EXISTS (SELECT FROM effects e
                         WHERE e.tenant_id = $1 AND position(convert_to(d.digest, 'UTF8') IN e.command) > 0)
              OR EXISTS (SELECT FROM outbox o
                         WHERE o.tenant_id = $1 AND position(convert_to(d.digest, 'UTF8') IN o.value) > 0)""",
        tenant_id,
        list(digests),
    )
    return {row["digest"] for row in rows}
