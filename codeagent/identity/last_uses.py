"""When keys were last used: gathered in memory, written behind, at most once a minute a key."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from codeagent import clock
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Database
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

NOTED_SECONDS = 60.0


class LastUses:
    """Writes every `write_seconds` what has been noted since. What a crash loses is the last minute's."""

    def __init__(self, database: Database, *, write_seconds: float = 5.0) -> None:
        self._database = database
        self._write_seconds = write_seconds
        self._noted: dict[str, float] = {}
        self._unwritten: dict[str, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, key_id: str) -> None:
        """The key is being used. Costs nothing but memory."""
        now = time.monotonic()
        if now - self._noted.get(key_id, -NOTED_SECONDS) >= NOTED_SECONDS:
            self._noted[key_id] = now
            self._unwritten[key_id] = clock.now()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write_regularly())

    async def _write_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._write_seconds)
            await self._write()

    async def _write(self) -> None:
        given, self._unwritten = self._unwritten, {}
        try:
            if given:
                await self._database.write("SELECT touch_api_keys_v1($1, $2)", list(given), list(given.values()))
        except CodeAgentError as error:
            self._unwritten = given | self._unwritten
            log.warning("last_uses.not_written", count=len(given), error=error.detail)
        except Exception:
            log.exception("last_uses.failed")
        old = time.monotonic() - NOTED_SECONDS
        self._noted = {key_id: noted for key_id, noted in self._noted.items() if noted > old}

    async def stop(self) -> None:
        """Writes what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._write()
