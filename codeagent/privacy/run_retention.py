"""Takes the content of runs that have ended long ago out of the log, where the operator wants that.

Their facts stay, with times, states and figures, and so do hashes and proofs. A fact names the runs, so that `audit
verify` need not wonder. Artifacts that nothing else names are removed with the others that nothing names.

The database empties no run that is not due by its own policy (`retention_policy`), whatever it is asked here.
"""

from __future__ import annotations

from datetime import timedelta

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.messages.ids import retention_stream
from codeagent.messages.privacy_events import ContentRetired
from codeagent.messages.values import ENDING_EVENTS
from codeagent.privacy.retention_policy import days_kept
from codeagent.projections.artifact_references import ArtifactReferences
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_RUNS = 20
"""In one transaction: a run may have thousands of events."""
EVENTS_AT_ONCE = 1_000
_CONTENT = """
WITH held AS MATERIALIZED (SELECT tenant_id, run_id FROM held_runs_v1($3, $4))
SELECT e.tenant_id, e.metadata ->> 'runid' AS run_id, over.at
FROM events e
CROSS JOIN LATERAL (
    SELECT greatest(x.occurred_at, x.recorded_at) AS at FROM events x
    WHERE x.stream_id = 'run-' || (e.metadata ->> 'runid') AND x.tenant_id = e.tenant_id AND x.event_type = ANY ($2)
    LIMIT 1) over
WHERE e.sealed IS NOT NULL AND e.metadata ->> 'runid' IS NOT NULL AND e.occurred_at < $1 AND over.at < $1
    AND (e.tenant_id, e.metadata ->> 'runid') NOT IN (SELECT tenant_id, run_id FROM held)"""
"""Events whose content is due, and when their run was over. Content of those who are held is passed over before the
oldest are counted, so that it stands before nothing else."""
_OLDEST = f"{_CONTENT} ORDER BY e.occurred_at LIMIT 1"
_DUE = f"""
SELECT DISTINCT tenant_id, run_id FROM (
    {_CONTENT} AND EXISTS (
        SELECT FROM projections p
        WHERE p.name = $5 AND (e.transaction_id, e.global_position) <= (p.transaction_id, p.global_position))
    ORDER BY e.occurred_at LIMIT $6) oldest
ORDER BY tenant_id, run_id LIMIT $7"""  # noqa: S608  constants
"""Runs with the oldest of them. What the list of artifacts has not taken yet has to wait for it, or their names would
come after they have been forgotten."""


class RunRetention:
    """`database` sees all tenants. Content goes `keep` after the end of its run, which is a day at least: later where
    the database says so, and never where that says nothing; what came later than that end goes when it is as old. Any
    number may work at once."""

    def __init__(self, database: Database, keep: timedelta) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._wanted = keep / timedelta(days=1)
        self._told: float | None = self._wanted

    async def forget(self, most: int) -> int:
        """Of at most `most` runs, and of few at once; how many there were."""
        days = await self._days()
        if days is None:
            metrics.CONTENT_DUE.set(0.0)
            return 0
        held = await self._database.fetch("SELECT key_id, subject_id FROM held_subjects")
        keys, subjects = [row["key_id"] for row in held], [row["subject_id"] for row in held]
        until = clock.now() - timedelta(days=days)
        asked = (until, list(ENDING_EVENTS), keys, subjects)
        oldest = await self._database.fetch(_OLDEST, *asked)
        metrics.CONTENT_DUE.set((until - oldest[0]["at"]).total_seconds() if oldest else 0.0)
        due = await self._database.fetch(_DUE, *asked, ArtifactReferences.NAME, EVENTS_AT_ONCE, min(most, MOST_RUNS))
        of_tenants: dict[str, list[str]] = {}
        for row in due:
            of_tenants.setdefault(row["tenant_id"], []).append(row["run_id"])
        return sum([await self._retire(tenant_id, runs, days) for tenant_id, runs in of_tenants.items()])

    async def _days(self) -> float | None:
        """The longer of what was asked for here and what the database says: nothing goes too early because one of them
        was not told yet."""
        policy = await days_kept(self._database)
        if policy not in (self._told, self._wanted):
            log.warning("retention.policy_differs", wanted_days=self._wanted, database_days=policy)
        self._told = policy
        return None if policy is None else max(policy, self._wanted)

    async def _retire(self, tenant_id: str, runs: list[str], days: float) -> int:
        """With the fact of it, or not at all."""
        author = Author(tenant_id, "system", "retention", clock.new_uuid())
        async with self._control.change(author) as change:
            due = await change.rows("SELECT * FROM runs_due_v1($1, $2, $3)", tenant_id, runs, days)
            retired = sorted(row["run_id"] for row in due)
            if not retired:
                return 0  # another relay was first, or somebody has just placed a hold
            fact = ContentRetired(run_ids=tuple(retired), days=days, events=sum(row["of_events"] for row in due))
            stored = await change.append(retention_stream(tenant_id), fact)
            await change.rows("SELECT retire_content_v2($1, $2)", tenant_id, stored.id)
            await change.rows(
                "DELETE FROM artifact_references WHERE tenant_id = $1 AND run_id = ANY ($2) AND key_id <> ''",
                tenant_id,
                retired,
            )
            await change.rows("DELETE FROM snapshots WHERE run_id = ANY ($1)", retired)
        return len(retired)
