"""What an edge beside the tested one does in the same database, held up in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httpx2

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.messages.ids import typed_id

_BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def beside_a_submission(
    database: Database,
    request: Coroutine[Any, Any, httpx2.Response],
    *,
    tenant_id: str,
    project_id: str | None = None,
    session_id: str | None = None,
) -> httpx2.Response:
    """The answer to a request that comes while another edge has accepted a run there, but not committed it yet."""
    async with database.transaction() as connection:
        await connection.execute(
            "SELECT accept_placed_run_v1($1, $2, 'f', '{}', gen_random_uuid(), 't', '{}', '', $3, $4, NULL)",
            typed_id("run", clock.new_uuid()),
            tenant_id,
            project_id,
            session_id,
        )
        answer = asyncio.ensure_future(request)
        async with asyncio.timeout(10):
            while not answer.done() and not await connection.fetchval(_BLOCKED):
                await asyncio.sleep(0.005)
    return await answer
