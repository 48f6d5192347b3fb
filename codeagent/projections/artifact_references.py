"""Which artifacts the log names: kept from it, for those who remove the others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from codeagent.errors import Unreadable
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.late import DIGEST
from codeagent.eventlog.sealing import require_keys
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.unreadable import name_unreadable
from codeagent.projections.dependency_caches import remember
from codeagent.projections.projection import Kept, Projection

MOST_LAG = timedelta(hours=1)
"""Behind the log by more than that, the table is not believed."""
ANYTHING = b""
"""In the place of a digest: a fact of the tenant that cannot be opened may name whatever they have."""


class ArtifactReferences(Projection):
    """Keeps the `artifact_references` table: every digest in any fact, whatever it is called there. Some name no
    artifact; that costs a row, and forgetting a field would cost an artifact. A row says whose key the fact has and of
    which run it is, so that what only facts name whose content is gone goes with that. A fact that its key does not
    open is named in the log and has a row with `ANYTHING`, until its content is gone too. Dependencies alone are in
    another table, `dependency_caches`, which is kept in step."""

    NAME = "artifact_references"
    LOCK = 0x61727472
    KEEPS = (
        Kept(
            "artifact_references",
            ("tenant_id", "digest", "key_id", "run_id"),
            sample="true",
            shared=True,
            # Whoever erases or retires content removes the rows first, and late facts bring some when it is gone.
            stands="""(t.key_id = '' OR t.run_id = '' OR EXISTS (
                          SELECT FROM public.events e WHERE e.metadata ->> 'runid' = t.run_id AND e.key_id = t.key_id
                              AND e.sealed IS NOT NULL))
                      AND NOT EXISTS (SELECT FROM public.erasures x WHERE x.key_id = t.key_id)""",
        ),
    )
    BESIDE = ("dependency_caches",)

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        # Names that cannot be read now: what nothing names is removed, so better none are taken.
        require_keys(page)
        await remember(connection, page)
        named = {
            (event.tenant_id, digest, event.key_id or "", event.metadata.get("runid", ""))
            for event in page
            for digest in _found(event)
        }
        await connection.executemany(
            """INSERT INTO artifact_references (tenant_id, digest, key_id, run_id) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING""",
            sorted(named),
        )


def _found(event: StoredEvent) -> list[bytes]:
    """None in a fact whose content is gone: what it named went with that."""
    if event.key_id is not None and event.sealed is None:
        return []
    if event.locked:
        name_unreadable(event, ArtifactReferences.NAME, Unreadable(event.locked, code="corrupt_row"))
        return [ANYTHING]
    return [bytes.fromhex(digest.decode()) for digest in DIGEST.findall(event.data)]


async def named_among(database: Database, tenant_id: str, digests: Sequence[str]) -> set[str]:
    """Which of them a fact names, or a command or answer that is under way; all of them while the table is far behind
    the log, or the tenant has a fact that cannot be opened."""
    rows = await database.fetch(
        """SELECT EXISTS (
               SELECT FROM events e LEFT JOIN projections p ON p.name = $1
               WHERE (e.transaction_id, e.global_position)
                     > (coalesce(p.transaction_id, '0'::xid8), coalesce(p.global_position, 0))
                     AND e.occurred_at < clock_timestamp() - $2::interval)
                  OR EXISTS (SELECT FROM artifact_references WHERE tenant_id = $3 AND digest = $4)""",
        ArtifactReferences.NAME,
        MOST_LAG,
        tenant_id,
        ANYTHING,
    )
    if rows[0][0]:
        return set(digests)
    rows = await database.fetch(
        """SELECT d.digest FROM unnest($2::text[]) AS d (digest)
           WHERE EXISTS (SELECT FROM artifact_references r
                         WHERE r.tenant_id = $1 AND r.digest = decode(substr(d.digest, 8), 'hex'))
              OR EXISTS (SELECT FROM dependency_caches c
                         WHERE c.tenant_id = $1 AND c.archive_digest = decode(substr(d.digest, 8), 'hex'))""",
        tenant_id,
        list(digests),
    )
    named = {row["digest"] for row in rows}
    return named | await under_way(database, tenant_id, [digest for digest in digests if digest not in named])


async def under_way(database: Database, tenant_id: str, digests: Sequence[str]) -> set[str]:
    """Those that a command or an answer names. Raises `Unavailable` while their keys cannot be looked up."""
    if not digests:
        return set()
    rows = await database.fetch(
        """SELECT 'effects/' || id AS place, command AS value FROM effects WHERE tenant_id = $1
           UNION ALL
           SELECT 'outbox/' || id, value FROM outbox WHERE tenant_id = $1 AND value IS NOT NULL""",
        tenant_id,
    )
    said = (await database.subjects.open_named({row["place"]: row["value"] for row in rows})).values()
    return {digest for digest in digests if any(digest.encode() in value for value in said if value is not None)}
