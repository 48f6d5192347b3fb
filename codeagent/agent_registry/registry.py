"""All of it together, on one database."""

from __future__ import annotations

from dataclasses import dataclass

from codeagent.agent_registry.agents import Agents
from codeagent.agent_registry.canaries import Canaries
from codeagent.agent_registry.resolver import AgentResolver
from codeagent.agent_registry.versions import AgentVersions
from codeagent.eventlog.database import Database


@dataclass(frozen=True, slots=True)
class AgentRegistry:
    definitions: Agents
    versions: AgentVersions
    canaries: Canaries
    resolver: AgentResolver

    @classmethod
    def on(cls, database: Database) -> AgentRegistry:
        return cls(Agents(database), AgentVersions(database), Canaries(database), AgentResolver(database))
