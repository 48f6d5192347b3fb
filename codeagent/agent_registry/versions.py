"""Versions of agents: made once, then moved between their states, one of them active at most."""

from __future__ import annotations

from collections.abc import Sequence

from codeagent.agent_registry import tables
from codeagent.agent_registry.agent import NO_VERSION, Agent, AgentVersion, Content, VersionState, builtin_version
from codeagent.agent_registry.canaries import end_canary
from codeagent.cursors import malformed_cursor
from codeagent.errors import Conflict, NotFound
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, Change, ControlPlane, check_repeat
from codeagent.messages.agent_events import (
    AgentRolledBack,
    AgentVersionCreated,
    AgentVersionPromoted,
    AgentVersionRetired,
)
from codeagent.messages.ids import agent_stream

_BEYOND = 2**31 - 1


class AgentVersions:
    """Works on an agent as it was read: what moves a version raises `VersionMismatch` where the agent has changed
    since, and every change raises `Conflict` for an agent that is built in or archived."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)

    async def create(self, author: Author, agent: Agent, order_id: str, content: Content) -> tuple[AgentVersion, bool]:
        """A draft, and whether an earlier request made it: `order_id` is derived from the request. Raises
        `InvalidInput` for an id that stands for another request."""
        agent.check_open()
        try:
            async with self._control.change(author) as change:
                made = await tables.insert_version(change, agent, author.tenant_id, author.id, order_id, content)
                if made is None:
                    raise Conflict("The agent is archived.", code="invalid_state_transition")
                await _record_created(change, *made)
                return made[1], False
        except Conflict:
            version = await self.made_before(author.tenant_id, order_id, content)
            if version is None:
                raise
        return version, True

    async def made_before(self, tenant_id: str, order_id: str, content: Content) -> AgentVersion | None:
        """What an earlier request has made. Raises `InvalidInput` where that was for something else."""
        version = await tables.version_ordered(self._database, tenant_id, order_id)
        if version is not None:
            check_repeat(version.digest, content.digest)
        return version

    async def find(self, tenant_id: str, agent: Agent, number: int) -> AgentVersion:
        """Raises `NotFound`."""
        if agent.builtin:
            found = builtin_version(agent) if number == 1 else None
        else:
            found = await tables.find_version(self._database, tenant_id, agent.id, number)
        if found is None:
            raise NotFound(NO_VERSION)
        return found

    async def page(
        self, tenant_id: str, agent: Agent, *, after: str | None, limit: int
    ) -> tuple[Sequence[AgentVersion], str | None]:
        """Versions, newest first, and the next page's cursor. Raises `Rejected` for a cursor that is none."""
        below = _BEYOND if after is None else parse_version_cursor(after)
        if agent.builtin:
            found: Sequence[AgentVersion] = [builtin_version(agent)] if below > 1 else []
        else:
            found = await tables.versions_before(self._database, tenant_id, agent.id, below, limit + 1)
        page = found[:limit]
        return page, str(page[-1].number) if len(found) > limit else None

    async def promote(self, author: Author, agent: Agent, number: int) -> Agent:
        """Makes a version the active one; the former becomes deprecated, and a canary ends. Raises `NotFound`, and
        `Conflict` for a retired version."""
        agent.check_open()
        if agent.active_version == number:
            return agent
        former, canary = agent.active_version, agent.canary
        async with self._control.change(author) as change:
            agent = await tables.update_agent(change, agent, active_version=number, former_version=former, canary=None)
            if await tables.state_of(change, agent.id, number) is VersionState.RETIRED:
                raise Conflict("The version is retired.", code="invalid_state_transition")
            ended = await end_canary(change, agent.id, canary)
            await _activate(change, agent, number, former)
            fact = AgentVersionPromoted(agent_id=agent.id, number=number, former=former, canary=ended)
            await change.record(agent_stream(agent.id), agent.version, fact)
        return agent

    async def rollback(self, author: Author, agent: Agent) -> Agent:
        """Makes the former version active again, once: from there the way on is to promote one. A canary ends. Raises
        `Conflict` where there is no former version, or it has been retired."""
        agent.check_open()
        former, active, canary = agent.former_version, agent.active_version, agent.canary
        if former is None or active is None:
            raise Conflict("There is no former version to go back to.", code="invalid_state_transition")
        async with self._control.change(author) as change:
            agent = await tables.update_agent(change, agent, active_version=former, former_version=None, canary=None)
            ended = await end_canary(change, agent.id, canary)
            await _activate(change, agent, former, active)
            fact = AgentRolledBack(agent_id=agent.id, number=former, former=active, canary=ended)
            await change.record(agent_stream(agent.id), agent.version, fact)
        return agent

    async def retire(self, author: Author, agent: Agent, number: int) -> Agent:
        """For good: no new run takes it, no rollback returns to it. Raises `NotFound`, and `Conflict` for the active
        version and for one whose canary runs."""
        agent.check_open()
        if agent.active_version == number:
            raise Conflict("The version is active: promote another one first.", code="invalid_state_transition")
        if agent.canary is not None and agent.canary.number == number:
            raise Conflict("The version is a canary: stop it first.", code="invalid_state_transition")
        version = await self.find(author.tenant_id, agent, number)
        if version.state is VersionState.RETIRED:
            return agent
        former = None if agent.former_version == number else agent.former_version
        async with self._control.change(author) as change:
            agent = await tables.update_agent(change, agent, former_version=former)
            await tables.set_state(change, agent.id, number, VersionState.RETIRED)
            fact = AgentVersionRetired(agent_id=agent.id, number=number)
            await change.record(agent_stream(agent.id), agent.version, fact)
        return agent


async def _record_created(change: Change, agent: Agent, version: AgentVersion) -> None:
    content = version.content
    fact = AgentVersionCreated(
        agent_id=agent.id,
        number=version.number,
        digest=version.digest,
        instructions=content.instructions,
        model=content.model,
        tools=content.tools,
        limits=content.limits,
        approvals=content.approvals,
        egress=content.egress or None,
        fallbacks=content.fallbacks or None,
        mcp=content.mcp or None,
        cache=content.cache,
        delegates=content.delegates or None,
    )
    await change.record(agent_stream(agent.id), agent.version, fact)


async def _activate(change: Change, agent: Agent, number: int, former: int | None) -> None:
    # In this order: the database lets one version of an agent be active at a time.
    if former is not None:
        await tables.set_state(change, agent.id, former, VersionState.DEPRECATED)
    await tables.set_state(change, agent.id, number, VersionState.ACTIVE)


def parse_version_cursor(cursor: str) -> int:
    """The number that a page of versions ends with. Raises `Rejected`."""
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 9):
        raise malformed_cursor()
    return int(cursor)
