"""Forgets what is no longer needed, a bounded batch at a time, so that nothing else waits behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from codeagent.errors import CodeAgentError
from codeagent.rounds import Rounds
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_AT_ONCE = 1_000
Forget = Callable[[int], Awaitable[int]]
"""Removes at most so many rows, and returns how many it did."""


class RetentionLoop:
    """Calls each of `forgetters` until it finds nothing more, every `every_seconds`. Several loops may run at once:
    they share the work."""

    def __init__(self, forgetters: Mapping[str, Forget], *, every_seconds: float) -> None:
        self._forgetters = forgetters
        self._every = every_seconds
        self._rounds = Rounds("retention", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        await self.round()
        return self._every

    async def round(self) -> int:
        """Removes all that is due; returns how much that was. What cannot be removed now is left for the next round,
        and holds up nothing else."""
        return sum([await self._forgotten(name, forget) for name, forget in self._forgetters.items()])

    async def _forgotten(self, name: str, forget: Forget) -> int:
        removed = 0
        try:
            while found := await forget(MOST_AT_ONCE):
                removed += found
        except CodeAgentError as error:
            log.warning("retention.waits", what=name, error=error.detail)
        except Exception:
            log.exception("retention.failed", what=name)
        if removed:
            log.info("retention.forgotten", what=name, count=removed)
        return removed
