"""How long the content of runs is kept, as the database has it and holds services to it.

Only the owner of the tables writes it, who is no service: whoever has a service's account cannot shorten it.
"""

from __future__ import annotations

from codeagent.eventlog.database import Database

_SET = """
INSERT INTO retention_policy (days) VALUES ($1)
ON CONFLICT (one) DO UPDATE SET days = excluded.days, set_at = clock_timestamp()"""


async def days_kept(database: Database) -> float | None:
    """At the least, after a run's end; None for as long as the log."""
    rows = await database.fetch("SELECT days FROM retention_policy")
    return rows[0]["days"] if rows else None


async def set_days_kept(database_url: str, days: float | None) -> bool:
    """Whether it was something else before. `database_url` has the account that owns the tables; None keeps content for
    as long as the log."""
    database = Database(database_url, connections=1, name="codeagent-policy")
    try:
        if await days_kept(database) == days:
            return False
        if days is None:
            await database.write("DELETE FROM retention_policy")
        else:
            await database.write(_SET, days)
        return True
    finally:
        await database.close()
