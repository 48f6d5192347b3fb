"""Ends the runs of those whose data is restricted, as long as any come."""

from __future__ import annotations

from codeagent.privacy.stopping import RestrictedRuns
from codeagent.rounds import Rounds


class Restrictions:
    """Any number may run: what is ordered twice is one order."""

    def __init__(self, runs: RestrictedRuns, *, every_seconds: float = 2.0) -> None:
        self._runs = runs
        self._every = every_seconds
        self._rounds = Rounds("restrictions", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        await self._runs.stop()
        return self._every
