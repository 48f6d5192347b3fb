"""Tells how far what is kept from the log is behind it, whether or not anything comes on."""

from __future__ import annotations

from collections.abc import Collection

from codeagent.eventlog.database import Database
from codeagent.projections.rebuild import standings
from codeagent.telemetry import metrics

_OLDEST = """
SELECT extract(epoch FROM clock_timestamp() - recorded_at)::double precision AS age
FROM events ORDER BY transaction_id, global_position LIMIT 1"""


async def measure_lags(database: Database, names: Collection[str]) -> None:
    """Sets the age of the oldest event that each has not taken, 0 where there is none. `names` are told of also where
    they have not begun. The database is asked and none of the followers: one that stands still tells nothing."""
    behind = {standing.name: standing.behind_seconds for standing in await standings(database)}
    missing = [name for name in names if name not in behind]
    if missing:
        rows = await database.fetch(_OLDEST)
        behind |= dict.fromkeys(missing, rows[0]["age"] if rows else 0.0)
    for name, seconds in behind.items():
        metrics.PROJECTION_LAG.labels(name).set(seconds)
