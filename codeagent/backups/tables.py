"""What is asked of the database before it is backed up, and of one that was restored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from codeagent.errors import Rejected
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor

_OUTSIDE = ("config_file", "hba_file", "ident_file")
_RIGHTS = "GRANT codeagent_service TO the role that backs up, or ask as the owner"


@dataclass(frozen=True, slots=True)
class LogState:
    """How far a log is. `schema` is None where there is none yet."""

    schema: str | None
    last_event: Cursor | None = None
    last_event_at: datetime | None = None
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be backed up."""

    version: str
    major: int
    segment_bytes: int
    system_identifier: str
    superuser: str
    database: str
    outside: dict[str, str]


async def log_state(database: Database) -> LogState:
    """Raises `Rejected` (`not_allowed_to_read`) where we may not read the log."""
    [row] = await database.fetch(
        """SELECT to_regclass('alembic_version') IS NOT NULL AS known,
                  to_regclass('audit_leaves') IS NOT NULL AS proved,
                  CASE WHEN to_regclass('events') IS NOT NULL
                       THEN has_table_privilege('events', 'SELECT') END AS readable"""
    )
    if row["readable"] is False:
        raise Rejected(f"the log cannot be read as this role: {_RIGHTS}", code="not_allowed_to_read")
    if not row["known"] or row["readable"] is None:
        return LogState(None)
    [schema] = await database.fetch("SELECT version_num FROM alembic_version")
    last = await database.fetch(
        """SELECT transaction_id::text AS tid, global_position, recorded_at FROM events
           ORDER BY transaction_id DESC, global_position DESC LIMIT 1"""
    )
    leaves = await database.fetch("SELECT coalesce(max(leaf_index) + 1, 0) FROM audit_leaves") if row["proved"] else []
    return LogState(
        schema["version_num"],
        Cursor(int(last[0]["tid"]), last[0]["global_position"]) if last else None,
        last[0]["recorded_at"] if last else None,
        leaves[0][0] if leaves else 0,
    )


async def server_of(database: Database) -> Server:
    """Raises `Rejected` (`tablespaces_not_supported`): what lies elsewhere on its disks is not ours to place."""
    [row] = await database.fetch(
        """SELECT current_setting('server_version') AS version,
                  current_setting('server_version_num')::integer AS number,
                  pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes, current_database() AS database,
                  (SELECT system_identifier::text FROM pg_control_system()) AS system,
                  (SELECT rolname FROM pg_roles WHERE oid = 10) AS superuser,
                  (SELECT array_agg(spcname::text) FROM pg_tablespace
                   WHERE pg_tablespace_location(oid) <> '') AS elsewhere"""
    )
    if row["elsewhere"]:
        names = ", ".join(row["elsewhere"])
        raise Rejected(f"the database has tablespaces of its own: {names}", code="tablespaces_not_supported")
    found = await database.fetch(
        """SELECT name, setting FROM pg_settings WHERE name = ANY ($1) AND NOT starts_with(
               setting, (SELECT setting || '/' FROM pg_settings WHERE name = 'data_directory'))""",
        list(_OUTSIDE),
    )
    return Server(
        row["version"].split()[0],
        row["number"] // 10_000,
        row["segment_bytes"],
        row["system"],
        row["superuser"],
        row["database"],
        {each["name"]: each["setting"] for each in found},
    )


async def server_time(database: Database) -> datetime:
    [row] = await database.fetch("SELECT clock_timestamp()")
    moment: datetime = row[0]
    return moment


async def set_passwords(database: Database, passwords: dict[str, str]) -> None:
    """Gives roles other passwords. They are ours, and of hexadecimal digits alone."""
    for role, password in passwords.items():
        if not (role.isidentifier() and password.isalnum()):
            raise ValueError("neither a role nor a password of ours")
        await database.write(f"ALTER ROLE {role} PASSWORD '{password}'")
