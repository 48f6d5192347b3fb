"""Keeps an edge's signing keys current: new ones from other edges are known, and what is due is rotated."""

from __future__ import annotations

import asyncio
import contextlib

from codeagent.errors import CodeAgentError
from codeagent.identity.signing import SigningKeys
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

REFRESH_SECONDS = 5.0


class SigningKeyLoop:
    """Any number of edges may run one each."""

    def __init__(self, keys: SigningKeys, *, every_seconds: float = REFRESH_SECONDS) -> None:
        self._keys = keys
        self._every = every_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Has the first look done before anybody logs in, unless the database is away."""
        await self._look()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self._look()

    async def _look(self) -> None:
        try:
            await self._keys.refresh()
        except CodeAgentError as error:
            log.warning("signing_keys.not_refreshed", code=error.code, error=error.detail)
        except Exception:
            log.exception("signing_keys.failed")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
