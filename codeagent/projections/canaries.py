"""What the runs of a canary say: those that it was given, beside those that the active version was given meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from codeagent.eventlog.database import Database
from codeagent.projections.outcomes import RunOutcome

MOST_RUNS = 10_000
"""A canary is judged on its first runs, both sides together: by then it is known, or there is no difference to know."""


@dataclass(frozen=True, slots=True)
class CanaryRun:
    """A run that either version could have been given. `is_canary` tells which one was. `answered` and `rejected` are
    approvals that a person has answered; a cost is None where a price is not known."""

    is_canary: bool
    outcome: str
    seconds: float | None
    cost_usd: float | None
    answered: int
    rejected: int


async def ended_runs(database: Database, tenant_id: str, agent: str, canary: int) -> int:
    """How many of those that `canary_runs` gives have ended, without reading them."""
    [row] = await database.fetch(
        """SELECT count(*) FILTER (WHERE outcome <> $5) AS ended
           FROM (SELECT outcome FROM agent_runs WHERE tenant_id = $1 AND agent = $2 AND canary = $3
                 ORDER BY submitted_at, run_id LIMIT $4) r""",
        tenant_id,
        agent,
        canary,
        MOST_RUNS,
        RunOutcome.OPEN.value,
        tenant=tenant_id,
    )
    return int(row["ended"])


async def canary_runs(database: Database, tenant_id: str, agent: str, canary: int) -> Sequence[CanaryRun]:
    """In the order in which they were submitted, at most `MOST_RUNS`. Runs that name a version are not among them."""
    rows = await database.fetch(
        """SELECT rule, outcome, working_ms, cost_usd, unpriced_calls, approvals_asked, approvals_rejected,
                  approvals_expired
           FROM agent_runs WHERE tenant_id = $1 AND agent = $2 AND canary = $3
           ORDER BY submitted_at, run_id LIMIT $4""",
        tenant_id,
        agent,
        canary,
        MOST_RUNS,
        tenant=tenant_id,
    )
    return [
        CanaryRun(
            row["rule"] == "canary",
            row["outcome"],
            None if row["working_ms"] is None else row["working_ms"] / 1_000,
            _cost(row["cost_usd"], row["unpriced_calls"]),
            row["approvals_asked"] - row["approvals_expired"],
            row["approvals_rejected"],
        )
        for row in rows
    ]


def _cost(cost_usd: Decimal, unpriced_calls: int) -> float | None:
    return None if unpriced_calls else float(cost_usd)
