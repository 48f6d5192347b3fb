"""Keys in a database of their own, for installations on several machines: never the server that has the log, whose base
backups and WAL would then hold both.

The table is made at first use. Deleted rows leave their bytes behind until they are vacuumed away, and in that server's
WAL; they are wrapped under a key-encryption key, which is elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from codeagent.errors import Unavailable
from codeagent.subjects.store import StoredKey

_TABLE = """
    CREATE TABLE IF NOT EXISTS subject_keys (
        key_id      text        PRIMARY KEY,
        tenant_id   text        NOT NULL,
        subject     text        NOT NULL,
        wrapped     bytea,
        created_at  timestamptz NOT NULL,
        closed_at   timestamptz,
        shredded_at timestamptz,
        CHECK ((wrapped IS NULL) = (shredded_at IS NOT NULL)),
        CHECK (shredded_at IS NULL OR closed_at IS NOT NULL)
    )"""
_TIMEOUT_SECONDS = 5.0


class KeyDatabase:
    """`address` gives the URL, anew for each connection: a password may change."""

    def __init__(self, address: Callable[[], str], *, connections: int = 2) -> None:
        self._address = address
        self._connections = connections
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def fetch(self, key_ids: Collection[str]) -> Mapping[str, StoredKey]:
        rows = await self._rows("SELECT * FROM subject_keys WHERE key_id = ANY ($1)", list(key_ids))
        return {row["key_id"]: _stored(row) for row in rows}

    async def add(self, key: StoredKey) -> StoredKey:
        await self._rows(
            """INSERT INTO subject_keys (key_id, tenant_id, subject, wrapped, created_at) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (key_id) DO NOTHING""",
            key.id,
            key.tenant_id,
            key.subject,
            key.wrapped,
            key.created_at,
        )
        return (await self.fetch([key.id]))[key.id]

    async def close_for_good(self, key_id: str, at: datetime) -> StoredKey | None:
        return await self._changed("closed_at = coalesce(closed_at, $2)", key_id, at)

    async def shred(self, key_id: str, at: datetime) -> StoredKey | None:
        changed = await self._changed(
            "wrapped = NULL, closed_at = coalesce(closed_at, $2), shredded_at = coalesce(shredded_at, $2)", key_id, at
        )
        await self._rows("VACUUM subject_keys")
        return changed

    async def rewrap(self, key_id: str, former: bytes, wrapped: bytes) -> bool:
        query = "UPDATE subject_keys SET wrapped = $3 WHERE key_id = $1 AND wrapped = $2 RETURNING key_id"
        return bool(await self._rows(query, key_id, former, wrapped))

    async def ids(self, after: str, limit: int) -> list[str]:
        query = """SELECT key_id FROM subject_keys WHERE key_id > $1 AND wrapped IS NOT NULL ORDER BY key_id LIMIT $2"""
        return [row["key_id"] for row in await self._rows(query, after, limit)]

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def _changed(self, assignments: str, key_id: str, at: datetime) -> StoredKey | None:
        query = f"UPDATE subject_keys SET {assignments} WHERE key_id = $1 RETURNING *"  # noqa: S608  constants
        rows = await self._rows(query, key_id, at)
        return _stored(rows[0]) if rows else None

    async def _rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with _available():
            pool = await self._opened()
            return list(await pool.fetch(query, *arguments))

    async def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                pool = await asyncpg.create_pool(
                    connect=self._connect,
                    min_size=1,
                    max_size=self._connections,
                    command_timeout=_TIMEOUT_SECONDS,
                    timeout=_TIMEOUT_SECONDS,
                    server_settings={"application_name": "codeagent-keys"},
                )
                try:
                    await pool.execute(_TABLE)
                except asyncpg.UniqueViolationError:
                    pass  # another process has made it this very moment
                self._pool = pool
            return self._pool

    async def _connect(self, *_: object, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self._address(), **options)


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        yield
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        detail = f"the database of subjects' keys does not answer ({type(error).__name__})"
        raise Unavailable(detail, code="key_store_unavailable") from error


def _stored(row: asyncpg.Record) -> StoredKey:
    return StoredKey(
        id=row["key_id"],
        tenant_id=row["tenant_id"],
        subject=row["subject"],
        wrapped=row["wrapped"],
        created_at=row["created_at"],
        closed_at=row["closed_at"],
        shredded_at=row["shredded_at"],
    )
