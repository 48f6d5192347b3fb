"""What tenants have installed before, by what it was installed from: kept from the log, forgotten when long unused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.unreadable import readable
from codeagent.messages.events import ExecEnded
from codeagent.messages.executions import Installed


async def remember(connection: Connection, page: Sequence[StoredEvent]) -> None:
    """What is installed from now on, and what was used again. Of one key the newest counts."""
    rows = [
        (event.tenant_id, _bytes(installed.key), _bytes(installed.dependencies), event.occurred_at)
        for event, installed in _installed(page)
    ]
    await connection.executemany(
        """INSERT INTO dependency_caches (tenant_id, key_digest, archive_digest, used_at) VALUES ($1, $2, $3, $4)
           ON CONFLICT (tenant_id, key_digest) DO UPDATE SET archive_digest = excluded.archive_digest,
               used_at = greatest(dependency_caches.used_at, excluded.used_at)""",
        rows,
    )


def _installed(page: Sequence[StoredEvent]) -> Iterator[tuple[StoredEvent, Installed]]:
    for event in page:
        # Looked for first: few operations install, and decoding them all is slow.
        if event.type == ExecEnded.NAME and b'"installed":' in event.data:
            ended = readable(event, "artifact_references")
            if isinstance(ended, ExecEnded) and ended.installed is not None:
                yield event, ended.installed


async def recall(database: Database, tenant_id: str, key: str) -> str | None:
    """The digest of the archive that the tenant has under that key. A moment behind the log."""
    rows = await database.fetch(
        "SELECT archive_digest FROM dependency_caches WHERE tenant_id = $1 AND key_digest = $2", tenant_id, _bytes(key)
    )
    return f"sha256:{rows[0]['archive_digest'].hex()}" if rows else None


async def forget_dependencies(database: Database, unused_for: timedelta, most: int) -> int:
    """Forgets at most `most` that no run has used for so long; returns how many. Their archives then go like all that
    nothing names."""
    rows = await database.write(
        """DELETE FROM dependency_caches WHERE (tenant_id, key_digest) IN (
               SELECT tenant_id, key_digest FROM dependency_caches WHERE used_at < clock_timestamp() - $1::interval
               LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING 1""",
        unused_for,
        most,
    )
    return len(rows)


def _bytes(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
