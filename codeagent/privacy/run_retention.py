"""Takes the content of runs that have ended long ago out of the log, where the operator wants that.

Their facts stay, with times, states and figures, and so do hashes and proofs. A fact names the runs, so that `audit
verify` need not wonder. Artifacts that nothing else names are removed with the others that nothing names.
"""

from __future__ import annotations

from datetime import timedelta

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.ids import retention_stream
from codeagent.messages.privacy_events import ContentRetired
from codeagent.messages.values import ENDING_EVENTS
from codeagent.projections.artifact_references import ArtifactReferences
from codeagent.subjects.key import key_id_of

MOST_RUNS = 20
"""In one transaction: a run may have thousands of events."""
EVENTS_AT_ONCE = 1_000
_DUE = """
WITH held AS MATERIALIZED (
    SELECT DISTINCT tenant_id, metadata ->> 'runid' AS run_id FROM events
    WHERE key_id = ANY ($5) AND sealed IS NOT NULL)
SELECT tenant_id, run_id FROM (
    SELECT DISTINCT tenant_id, run_id FROM (
        SELECT e.tenant_id, e.metadata ->> 'runid' AS run_id
        FROM events e
        JOIN projections p ON p.name = $2
        WHERE e.sealed IS NOT NULL AND e.metadata ->> 'runid' IS NOT NULL AND e.occurred_at < $1
            AND (e.transaction_id, e.global_position) <= (p.transaction_id, p.global_position)
            AND NOT EXISTS (SELECT FROM held h
                            WHERE h.tenant_id = e.tenant_id AND h.run_id = e.metadata ->> 'runid')
            AND EXISTS (
                SELECT FROM events x WHERE x.stream_id = 'run-' || (e.metadata ->> 'runid')
                    AND x.tenant_id = e.tenant_id AND x.event_type = ANY ($6) AND x.occurred_at < $1)
        ORDER BY e.occurred_at LIMIT $4) oldest) due
WHERE NOT is_run_held_v1(tenant_id, run_id) ORDER BY tenant_id, run_id LIMIT $3"""
"""Runs with the oldest events whose content is due. What the list of artifacts has not taken yet has to wait for it, or
their names would come after they have been forgotten. Content of those who are held is passed over before the oldest
are counted, so that it stands before nothing else."""


class RunRetention:
    """`database` sees all tenants. Content goes `keep` after the end of its run, which is a day at least; what came
    later than that end goes when it is as old. Any number may work at once."""

    def __init__(self, database: Database, keep: timedelta) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._keep = keep

    async def forget(self, most: int) -> int:
        """Of at most `most` runs, and of few at once; how many there were."""
        holds = await self._database.fetch("SELECT tenant_id, subject_id FROM legal_holds")
        due = await self._database.fetch(
            _DUE,
            clock.now() - self._keep,
            ArtifactReferences.NAME,
            min(most, MOST_RUNS),
            EVENTS_AT_ONCE,
            [key_id_of(hold["tenant_id"], hold["subject_id"]) for hold in holds],
            list(ENDING_EVENTS),
        )
        of_tenants: dict[str, list[str]] = {}
        for row in due:
            of_tenants.setdefault(row["tenant_id"], []).append(row["run_id"])
        return sum([await self._retire(tenant_id, runs) for tenant_id, runs in of_tenants.items()])

    async def _retire(self, tenant_id: str, runs: list[str]) -> int:
        """With the fact of it, or not at all."""
        author = Author(tenant_id, "system", "retention", clock.new_uuid())
        async with self._control.change(author) as change:
            rows = await change.rows("SELECT * FROM retire_content_v1($1, $2)", tenant_id, runs)
            retired = sorted(row["retired"] for row in rows)
            if not retired:
                return 0  # another relay was first, or somebody has just placed a hold
            await change.rows(
                "DELETE FROM artifact_references WHERE tenant_id = $1 AND run_id = ANY ($2) AND key_id <> ''",
                tenant_id,
                retired,
            )
            await change.rows("DELETE FROM snapshots WHERE run_id = ANY ($1)", retired)
            days, events = self._keep / timedelta(days=1), sum(row["of_events"] for row in rows)
            fact = ContentRetired(run_ids=tuple(retired), days=days, events=events)
            await change.append(retention_stream(tenant_id), fact)
        return len(retired)
