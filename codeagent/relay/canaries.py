"""Looks every few seconds whether a canary has broken one of its bounds, and has it rolled back."""

from __future__ import annotations

import asyncio

from codeagent.agent_registry.agent import Agent
from codeagent.agent_registry.canaries import roll_back, running_canaries
from codeagent.errors import CodeAgentError, VersionMismatch
from codeagent.eventlog.database import Database
from codeagent.projections.canaries import MOST_RUNS, canary_runs, ended_runs
from codeagent.projections.verdicts import judge
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)


class CanaryWatch:
    """Any number may run: whoever is first writes the fact, and the others find the agent changed. `database` owns the
    tables."""

    def __init__(self, database: Database, *, every_seconds: float = 5.0) -> None:
        self._database = database
        self._every = every_seconds
        self._seen: dict[tuple[str, int], int] = {}  # of each canary, how many runs had ended
        self._rounds = Rounds("canaries", self._round)
        self.start, self.stop = self._rounds.start, self._rounds.stop

    async def _round(self) -> float:
        await self.look()
        return self._every

    async def look(self) -> int:
        """One look at every canary that runs; returns how many were rolled back. One that cannot be judged holds up no
        other."""
        running = await running_canaries(self._database)
        seen = {(agent.id, agent.canary.began) for _, agent in running if agent.canary is not None}
        self._seen = {key: ended for key, ended in self._seen.items() if key in seen}
        return sum([await self._judged(tenant_id, agent) for tenant_id, agent in running])

    async def _judged(self, tenant_id: str, agent: Agent) -> bool:
        try:
            return await self._judge(tenant_id, agent)
        except VersionMismatch:
            return False  # it has been ended, or the agent was changed: the next look tells
        except CodeAgentError as error:
            log.warning("canary.not_judged", agent_id=agent.id, error=error.detail)
        except Exception:
            log.exception("canary.not_judged", agent_id=agent.id)
        return False

    async def _judge(self, tenant_id: str, agent: Agent) -> bool:
        canary = agent.canary
        assert canary is not None, "only agents with a canary are looked at"
        key = (agent.id, canary.began)
        if self._seen.get(key) == MOST_RUNS:
            return False  # no other runs are judged
        ended = await ended_runs(self._database, tenant_id, agent.name, canary.began)
        if self._seen.get(key) == ended:
            return False
        runs = await canary_runs(self._database, tenant_id, agent.name, canary.began)
        # Beside the loop: of many runs it takes a while.
        verdict = await asyncio.to_thread(judge, canary.plan, runs)
        if verdict is not None:
            await roll_back(self._database, tenant_id, agent, verdict)
            metrics.CANARY_ROLLBACKS.labels(verdict.bound.metric.value).inc()
            log.warning(
                "canary.rolled_back", agent_id=agent.id, version=canary.number, metric=verdict.bound.metric.value
            )
        self._seen[key] = ended
        return verdict is not None
