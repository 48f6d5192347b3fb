"""How many connections a database has for us."""

from __future__ import annotations

from codeagent.eventlog.database import Database

_LIMITS = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0) AS server,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user) AS account,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database
"""


async def free_connections(database: Database) -> int:
    """The smallest of the limits of the server, of our account and of the database; what others use counts as free."""
    [row] = await database.fetch(_LIMITS)
    limits: list[int] = [row["server"], row["account"], row["database"]]
    return min(limit for limit in limits if limit >= 0)
