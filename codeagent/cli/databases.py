"""The database of a command that needs it once, with the keys that open what is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from codeagent.cli.secrets import database_address, open_secrets
from codeagent.cli.subject_keys import sealing_box, subject_keys
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.settings import Settings

_NEEDED = ("database_url", "database_password", "kek", "subject_keys_url")


@asynccontextmanager
async def command_database(
    settings: Settings,
    *,
    connections: int = 1,
    name: str = "codeagent-command",
    role: str | None = SERVICE_ROLE,
    timeout_seconds: float = 10.0,
) -> AsyncIterator[Database]:
    """Raises `Misconfigured`."""
    secrets = await open_secrets("", settings, _NEEDED)
    try:
        keys = subject_keys(settings, secrets, sealing_box(secrets))
        database = Database(
            database_address(secrets),
            connections=connections,
            name=name,
            role=role,
            timeout_seconds=timeout_seconds,
            subjects=keys,
        )
        try:
            yield database
        finally:
            await database.close()
            await keys.close()
    finally:
        await secrets.stop()
