"""Folds of streams, kept so that long ones need not be read from their beginning: a cache, and never the truth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from codeagent.eventlog.database import Database
from codeagent.subjects.key import NotOpenedBySubject

KEPT_FOR = timedelta(days=30)
"""After the last event that was folded."""


@dataclass(frozen=True, slots=True)
class Place:
    """Of which run a fold is, up to which version of its stream, and by which code; `key_id` names the key that seals
    it."""

    tenant_id: str
    run_id: str
    version: int
    folded_by: str
    key_id: str | None


def _named(tenant_id: str, run_id: str) -> str:
    return f"snapshots/{tenant_id}/{run_id}"


async def find(database: Database, tenant_id: str, run_id: str, folded_by: str) -> bytes | None:
    """What the same code has folded of a run; None where there is none that can be opened. `database` works under the
    edge's role."""
    rows = await database.fetch(
        "SELECT value FROM snapshots WHERE run_id = $1 AND folded_by = $2", run_id, folded_by, tenant=tenant_id
    )
    if not rows:
        return None
    place = _named(tenant_id, run_id)
    try:
        return (await database.subjects.open_named({place: rows[0]["value"]}))[place]
    except NotOpenedBySubject:
        return None


async def keep(database: Database, place: Place, value: bytes) -> None:
    """In the place of an older one, or of one that other code has folded; not for somebody who is being erased."""
    if place.key_id is not None:
        key = (await database.subjects.named([place.key_id]))[place.key_id]
        if not key.seals:
            return
        value = key.seal_named(value, _named(place.tenant_id, place.run_id))
    await database.write(
        """INSERT INTO snapshots (run_id, tenant_id, version, folded_by, value) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (run_id) DO UPDATE SET version = excluded.version, folded_by = excluded.folded_by,
               value = excluded.value, folded_at = clock_timestamp()
           WHERE snapshots.version < excluded.version OR snapshots.folded_by <> excluded.folded_by""",
        place.run_id,
        place.tenant_id,
        place.version,
        place.folded_by,
        value,
        tenant=place.tenant_id,
    )


async def forget_old(database: Database, most: int) -> int:
    """Removes at most `most` that nobody has gone on with for long; returns how many. `database` sees all tenants."""
    rows = await database.write(
        """DELETE FROM snapshots WHERE run_id IN (
               SELECT run_id FROM snapshots WHERE folded_at < clock_timestamp() - $1::interval LIMIT $2)
           RETURNING 1""",
        KEPT_FOR,
        most,
    )
    return len(rows)
