"""Brings a database to this program's schema. Alembic is imported late: it costs a second that no service needs."""

from __future__ import annotations

from pathlib import Path

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


def _config(connection: Connection | None = None) -> object:
    from alembic.config import Config  # noqa: PLC0415  see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = _config(connection)
    assert isinstance(config, Config)
    command.upgrade(config, "head")


async def upgrade(database_url: str) -> None:
    """Runs what is missing. Several processes may call it at once: one works, the others wait."""
    # The driver reads the address itself: it knows options, such as sslmode, that the engine would stumble over.
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(database_url), poolclass=NullPool
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()
