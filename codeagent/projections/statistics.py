"""What a project's runs came to, from the list of runs: a moment behind the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import orjson

from codeagent.eventlog.database import Database


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """`by_status` counts runs; durations are seconds from submission to end, of ended runs, None without any."""

    by_status: dict[str, int]
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    duration_p50_seconds: float | None
    duration_p95_seconds: float | None
    last_run_at: datetime | None


async def project_statistics(database: Database, tenant_id: str, project_id: str) -> RunStatistics:
    [row] = await database.fetch(
        """WITH mine AS (
               SELECT *, extract(epoch FROM updated_at - created_at) AS seconds,
                      status IN ('completed', 'failed', 'canceled', 'rejected') AS ended
               FROM runs WHERE tenant_id = $1 AND project_id = $2)
           SELECT (SELECT coalesce(jsonb_object_agg(s.status, s.count), '{}') FROM
                       (SELECT status, count(*) FROM mine GROUP BY status) s) AS by_status,
                  coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
                  coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
                  coalesce(sum(cost_usd), 0) AS cost_usd,
                  percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE ended) AS duration_p50_seconds,
                  percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE ended) AS duration_p95_seconds,
                  max(created_at) AS last_run_at
           FROM mine""",
        tenant_id,
        project_id,
        tenant=tenant_id,
    )
    return RunStatistics(**{**row, "by_status": orjson.loads(row["by_status"])})
