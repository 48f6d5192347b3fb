"""What the runs of sessions have brought, from the row of each session: a moment behind the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from codeagent.eventlog.database import Database
from codeagent.projections.tally import COUNTERS, Tally


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """`used` counts the runs as well. `last_run_id` is the run that was submitted last, None without any; runs that
    another run has started count, and are not it. `last_active_at` is when something last happened in one of them."""

    last_run_id: str | None = None
    last_run_status: str | None = None
    last_active_at: datetime | None = None
    used: Tally = field(default_factory=Tally)


async def session_statistics(
    database: Database, tenant_id: str, session_ids: Sequence[str]
) -> Mapping[str, SessionStatistics]:
    """Of each of the tenant's sessions that are named, those without runs included. `database` is the edge's."""
    rows = await database.fetch(
        "SELECT * FROM session_totals WHERE tenant_id = $1 AND session_id = ANY ($2)",
        tenant_id,
        session_ids,
        tenant=tenant_id,
    )
    found = {
        row["session_id"]: SessionStatistics(
            row["last_run_id"],
            row["last_run_status"],
            row["last_active_at"],
            Tally(*(row[name] for name in COUNTERS)),
        )
        for row in rows
    }
    return {session_id: found.get(session_id, SessionStatistics()) for session_id in session_ids}
