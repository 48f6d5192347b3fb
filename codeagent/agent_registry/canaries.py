"""Canaries of agents: begun and stopped by people, rolled back on their runs' outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from codeagent import clock
from codeagent.agent_registry import tables
from codeagent.agent_registry.agent import Agent, VersionState
from codeagent.agent_registry.canary import Canary, RolledBack
from codeagent.errors import Conflict
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, Change, ControlPlane
from codeagent.messages.canaries import CanaryPlan, CanaryVerdict
from codeagent.messages.canary_events import AgentCanaryRolledBack, AgentCanaryStarted, AgentCanaryStopped
from codeagent.messages.ids import agent_stream


class Canaries:
    """Works on an agent as it was read, as `AgentVersions` does."""

    def __init__(self, database: Database) -> None:
        self._control = ControlPlane(database)

    async def start(self, author: Author, agent: Agent, number: int, plan: CanaryPlan) -> Agent:
        """Takes the place of a canary that runs: of the same version, with another plan, too. Raises `NotFound`, and
        `Conflict` where there is no active version to hold it against and for a version that is active or retired."""
        agent.check_open()
        former, active = agent.canary, agent.active_version
        if active is None or active == number:
            raise _refused("A canary is held against another version, which is active.")
        canary = Canary(number=number, began=agent.version + 1, began_at=clock.now(), plan=plan)
        async with self._control.change(author) as change:
            agent = await tables.update_agent(change, agent, canary=canary.model_dump_json())
            if await tables.state_of(change, agent.id, number) is VersionState.RETIRED:
                raise _refused("The version is retired.")
            ended = await end_canary(change, agent.id, former)
            await tables.set_state(change, agent.id, number, VersionState.CANARY)
            fact = AgentCanaryStarted(agent_id=agent.id, number=number, active=active, plan=plan, canary=ended)
            await change.record(agent_stream(agent.id), agent.version, fact)
        return agent

    async def stop(self, author: Author, agent: Agent) -> Agent:
        """Raises `Conflict` where none is running."""
        agent.check_open()
        canary = agent.canary
        if canary is None:
            raise _refused("No canary is running.")
        async with self._control.change(author) as change:
            agent = await tables.update_agent(change, agent, canary=None)
            await end_canary(change, agent.id, canary)
            fact = AgentCanaryStopped(agent_id=agent.id, number=canary.number)
            await change.record(agent_stream(agent.id), agent.version, fact)
        return agent


async def end_canary(change: Change, agent_id: str, canary: Canary | None) -> int | None:
    """Has the version out of use that a canary was of, if any, and returns its number: runs were given it, so it is no
    draft any more."""
    if canary is None:
        return None
    await tables.set_state(change, agent_id, canary.number, VersionState.DEPRECATED)
    return canary.number


async def running_canaries(database: Database) -> Sequence[tuple[str, Agent]]:
    """Agents that have one, of all tenants, each with its tenant. `database` sees all tenants."""
    return await tables.agents_with_canary(database)


async def roll_back(database: Database, tenant_id: str, agent: Agent, verdict: CanaryVerdict) -> Agent:
    """Ends the agent's canary for what its runs came to. `database` sees all tenants. Raises `VersionMismatch` where
    the agent has changed since it was read, as it has once anybody has ended the canary."""
    canary, active = agent.canary, agent.active_version
    assert canary is not None, "only a running canary is rolled back"
    assert active is not None, "a canary is held against an active version"
    author = Author(tenant_id, "system", "canaries", clock.new_uuid())
    ended = RolledBack(number=canary.number, at=clock.now(), verdict=verdict)
    async with ControlPlane(database).change(author) as change:
        agent = await tables.update_agent(change, agent, canary=None, rolled_back=ended.model_dump_json())
        await end_canary(change, agent.id, canary)
        fact = AgentCanaryRolledBack(agent_id=agent.id, number=canary.number, active=active, verdict=verdict)
        await change.record(agent_stream(agent.id), agent.version, fact)
    return agent


def _refused(detail: str) -> Conflict:
    return Conflict(detail, code="invalid_state_transition")
