"""Agents: made, listed, described and archived, each change with its fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import orjson

from codeagent import clock
from codeagent.agent_registry import tables
from codeagent.agent_registry.agent import BUILTIN, NAME, NONE_SUCH, Agent
from codeagent.agent_registry.canaries import end_canary
from codeagent.cursors import malformed_cursor
from codeagent.errors import Conflict, NotFound
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane, check_repeat
from codeagent.messages.agent_events import AgentArchived, AgentCreated, AgentUpdated
from codeagent.messages.ids import agent_stream

_BUILTIN_BY_ID = {agent.id: agent for agent in BUILTIN.values()}


@dataclass(frozen=True, slots=True)
class AgentOrder:
    """An agent to make. `id` is derived from the request, so that a repeat makes none."""

    id: str
    name: str
    description: str

    @property
    def fingerprint(self) -> str:
        return sha256(orjson.dumps([self.name, self.description])).hexdigest()


class Agents:
    """`database` works under the edge's role. Every method sees the agents of the named tenant, or of the author's,
    and those that are built in."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)

    async def create(self, author: Author, order: AgentOrder) -> tuple[Agent, bool]:
        """The agent, and whether an earlier request made it. Raises `Conflict` for a name that is taken, by a built-in
        or an archived agent too, and `InvalidInput` for an id that stands for another request."""
        if order.name in BUILTIN:
            raise _taken(order.name)
        try:
            async with self._control.change(author) as change:
                agent = await tables.insert_agent(
                    change, order.id, author.tenant_id, author.id, order.name, order.description, order.fingerprint
                )
                fact = AgentCreated(agent_id=agent.id, name=agent.name, description=agent.description)
                await change.record(agent_stream(agent.id), agent.version, fact)
        except Conflict:
            return await self._made_before(author.tenant_id, order), True
        return agent, False

    async def _made_before(self, tenant_id: str, order: AgentOrder) -> Agent:
        made = await tables.agent_made(self._database, tenant_id, order.id)
        if made is None:
            raise _taken(order.name)
        agent, fingerprint = made
        check_repeat(fingerprint, order.fingerprint)
        return agent

    async def find(self, tenant_id: str, reference: str) -> Agent:
        """By id or by name. Raises `NotFound`, also for another tenant's agent."""
        agent = BUILTIN.get(reference) or _BUILTIN_BY_ID.get(reference)
        agent = agent or await tables.find_agent(self._database, tenant_id, reference)
        if agent is None:
            raise NotFound(NONE_SUCH)
        return agent

    async def page(
        self, tenant_id: str, *, after: str | None, limit: int, archived: bool
    ) -> tuple[Sequence[Agent], str | None]:
        """Agents by name, the archived ones if asked for, and the next page's cursor, which is the name that this one
        ends with. Raises `Rejected` for a cursor that is none."""
        if after is not None and not NAME.fullmatch(after):
            raise malformed_cursor()
        beyond = after or ""
        rows = await tables.agents_after(self._database, tenant_id, beyond, limit + 1, archived=archived)
        builtin = [agent for agent in BUILTIN.values() if agent.name > beyond]
        found = sorted([*builtin, *rows], key=lambda agent: agent.name)
        return found[:limit], found[limit - 1].name if len(found) > limit else None

    async def describe(self, author: Author, agent: Agent, description: str) -> Agent:
        """Raises `Conflict` for an agent that cannot be changed, `VersionMismatch` for one that has been meanwhile."""
        agent.check_open()
        if agent.description == description:
            return agent
        async with self._control.change(author) as change:
            agent = await tables.update_agent(change, agent, description=description)
            fact = AgentUpdated(agent_id=agent.id, description=description)
            await change.record(agent_stream(agent.id), agent.version, fact)
        return agent

    async def archive(self, author: Author, agent: Agent) -> None:
        """For good: new runs are refused, those that have begun go on. Raises as `describe`."""
        if agent.archived_at is not None:
            return
        agent.check_open()
        canary = agent.canary
        async with self._control.change(author) as change:
            agent = await tables.update_agent(change, agent, archived_at=clock.now(), canary=None)
            ended = await end_canary(change, agent.id, canary)
            fact = AgentArchived(agent_id=agent.id, canary=ended)
            await change.record(agent_stream(agent.id), agent.version, fact)


def _taken(name: str) -> Conflict:
    return Conflict(f"There is an agent {name!r} already.")
