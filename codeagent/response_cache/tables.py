"""The rows of kept replies: every statement about them, and nothing that decides."""

from __future__ import annotations

from datetime import datetime

from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Change
from codeagent.response_cache.slot import Bounds, Slot


async def find(database: Database, slot: Slot) -> Row | None:
    """`reply_sealed` and `stored_at` of what is there and no older than the slot allows."""
    rows = await database.fetch(
        """SELECT reply_sealed, stored_at FROM response_cache
           WHERE tenant_id = $1 AND key = $2
             AND expires_at > clock_timestamp() AND stored_at > clock_timestamp() - $3::interval""",
        slot.tenant_id,
        slot.key,
        slot.ttl,
    )
    return rows[0] if rows else None


async def keep(database: Database, slot: Slot, sealed: bytes, bounds: Bounds) -> None:
    """Instead of what is there. Of the tenant's others the oldest go that are beyond its bounds with this one; a few
    more may stay while several are kept at the same moment. Of a principal who was erased nothing is kept any more: an
    erasure that is under way is waited for, and waits in turn."""
    await database.write(
        """WITH asked AS (SELECT erased_at FROM users WHERE id = $3 FOR SHARE),
           beyond AS (
               SELECT key FROM (
                   SELECT key, count(*) OVER newest AS rows, sum(size_bytes) OVER newest AS bytes
                   FROM response_cache WHERE tenant_id = $1 AND key <> $2
                   WINDOW newest AS (ORDER BY stored_at DESC, key)) AS others
               WHERE rows > $6 - 1 OR bytes > $7 - octet_length($4::bytea)),
           gone AS (DELETE FROM response_cache WHERE tenant_id = $1 AND key IN (SELECT key FROM beyond))
           INSERT INTO response_cache (tenant_id, key, principal_id, reply_sealed, size_bytes, stored_at, expires_at)
           SELECT $1, $2, $3, $4, octet_length($4), now.at, now.at + $5::interval
           FROM (SELECT clock_timestamp() AS at) AS now
           WHERE NOT EXISTS (SELECT FROM asked WHERE erased_at IS NOT NULL)
           ON CONFLICT (tenant_id, key) DO UPDATE SET
               principal_id = excluded.principal_id, reply_sealed = excluded.reply_sealed,
               size_bytes = excluded.size_bytes, stored_at = excluded.stored_at, expires_at = excluded.expires_at""",
        slot.tenant_id,
        slot.key,
        slot.principal_id,
        sealed,
        slot.ttl,
        bounds.tenant_rows,
        bounds.tenant_bytes,
    )


async def remove(database: Database, slot: Slot, stored_at: datetime) -> None:
    """Unless another one is in its place meanwhile."""
    await database.write(
        "DELETE FROM response_cache WHERE tenant_id = $1 AND key = $2 AND stored_at = $3",
        slot.tenant_id,
        slot.key,
        stored_at,
    )


async def forget_expired_replies(database: Database, most: int) -> int:
    """Removes at most `most`; returns how many."""
    rows = await database.write(
        """DELETE FROM response_cache WHERE (tenant_id, key) IN (
               SELECT tenant_id, key FROM response_cache WHERE expires_at <= clock_timestamp()
               LIMIT $1 FOR UPDATE SKIP LOCKED)
           RETURNING 1""",
        most,
    )
    return len(rows)


async def forget_replies_of(change: Change, principal_id: str) -> int:
    """Of the tenant of `change`, those that runs of the principal have had kept; returns how many."""
    rows = await change.rows("DELETE FROM response_cache WHERE principal_id = $1 RETURNING tenant_id", principal_id)
    return len(rows)
