"""What the runs of an agent's versions came to within some days: exact, from the row of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from codeagent.eventlog.database import Database


@dataclass(frozen=True, slots=True)
class VersionQuery:
    """Runs that were submitted on these days of UTC, both included, of `version` or of every one below `before`."""

    agent: str
    first: date
    last: date
    version: int | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """Of one version. Sums are of all its runs, those at work included. Percentiles are of runs that succeeded or
    failed: the least value that this share of them does not exceed, and None without any; those of cost leave out runs
    of which a price is not known."""

    version: int
    runs: int
    open: int
    succeeded: int
    failed: int
    canceled: int
    excused: int
    steps: int
    calls: int
    cached_calls: int
    unpriced_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    tool_calls: int
    tool_failures: int
    approvals_asked: int
    approvals_rejected: int
    approvals_expired: int
    working_ms_p50: int | None
    working_ms_p95: int | None
    cost_usd_p50: Decimal | None
    cost_usd_p95: Decimal | None

    @property
    def success_rate(self) -> float | None:
        """Of the runs that count; None without any."""
        counted = self.succeeded + self.failed
        return self.succeeded / counted if counted else None


_SUMMED = (
    "steps",
    "calls",
    "cached_calls",
    "unpriced_calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "tool_calls",
    "tool_failures",
    "approvals_asked",
    "approvals_rejected",
    "approvals_expired",
)
_SUMS = ", ".join(f"sum({name})::{'numeric' if name == 'cost_usd' else 'bigint'} AS {name}" for name in _SUMMED)
_OUTCOMES = ", ".join(
    f"count(*) FILTER (WHERE outcome = '{name}') AS {name}"
    for name in ("open", "succeeded", "failed", "canceled", "excused")
)
_COUNTED = "outcome IN ('succeeded', 'failed')"


def _percentile(column: str, percent: int, which: str = _COUNTED) -> str:
    return (
        f"percentile_disc(0.{percent}) WITHIN GROUP (ORDER BY {column}) FILTER (WHERE {which}) AS {column}_p{percent}"
    )


_STATISTICS = f"""
SELECT agent_version AS version, count(*) AS runs, {_OUTCOMES}, {_SUMS},
       {_percentile("working_ms", 50)}, {_percentile("working_ms", 95)},
       {_percentile("cost_usd", 50, _COUNTED + " AND unpriced_calls = 0")},
       {_percentile("cost_usd", 95, _COUNTED + " AND unpriced_calls = 0")}
FROM agent_runs
WHERE tenant_id = $1 AND agent = $2 AND submitted_at >= $3 AND submitted_at < $4
      AND ($5::integer IS NULL OR agent_version = $5) AND ($6::integer IS NULL OR agent_version < $6)
GROUP BY agent_version ORDER BY agent_version DESC LIMIT $7"""  # noqa: S608  constants


async def version_statistics(
    database: Database, tenant_id: str, query: VersionQuery, limit: int
) -> Sequence[VersionStatistics]:
    """At most `limit` versions that had runs, newest first. `database` is the edge's."""
    rows = await database.fetch(
        _STATISTICS,
        tenant_id,
        query.agent,
        _begin(query.first),
        _begin(query.last) + timedelta(days=1),
        query.version,
        query.before,
        limit,
        tenant=tenant_id,
    )
    names = [field.name for field in fields(VersionStatistics)]
    return [VersionStatistics(**{name: row[name] for name in names}) for row in rows]


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
