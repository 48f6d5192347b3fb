"""What happens to an agent's definition: the stream `agent-<id>`, written with the rows that it changes.

Runs are not told of any of it: each carries the version it was given.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from codeagent.messages.envelope import Event
from codeagent.messages.mcp import McpTools
from codeagent.messages.personal import OfTenant
from codeagent.messages.values import ApprovalPolicy, CachePolicy, Digest, Fallbacks, LimitsAsked, absent


class AgentCreated(Event):
    NAME: ClassVar[str] = "agent.created"

    agent_id: str
    name: Annotated[str, OfTenant("telling agents apart", "what the user wrote")]
    description: Annotated[str, OfTenant("telling what an agent is for", "what the user wrote")]


class AgentUpdated(Event):
    NAME: ClassVar[str] = "agent.updated"

    agent_id: str
    description: Annotated[str, OfTenant("telling what an agent is for", "what the user wrote")]


class AgentArchived(Event):
    """No new run takes it; those that have begun go on. `canary` is the version of the canary that this ends, if any,
    as in what follows."""

    NAME: ClassVar[str] = "agent.archived"

    agent_id: str
    canary: int | None = Field(default=None, exclude_if=absent)


class AgentVersionCreated(Event):
    """A draft. `digest` is over the canonical JSON of what follows it."""

    NAME: ClassVar[str] = "agent.version_created"

    agent_id: str
    number: int
    digest: Digest
    instructions: Annotated[str, OfTenant("the agent's work", "what the user wrote")]
    model: str | None
    tools: tuple[str, ...]
    limits: LimitsAsked
    approvals: ApprovalPolicy | None = Field(default=None, exclude_if=absent)
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
    fallbacks: Fallbacks | None = Field(default=None, exclude_if=absent)
    mcp: tuple[McpTools, ...] | None = Field(default=None, exclude_if=absent)
    cache: CachePolicy | None = Field(default=None, exclude_if=absent)
    delegates: tuple[str, ...] | None = Field(default=None, exclude_if=absent)


class AgentVersionPromoted(Event):
    """New runs that name no version get this one. `former` is the version that they got until now, if any."""

    NAME: ClassVar[str] = "agent.version_promoted"

    agent_id: str
    number: int
    former: int | None
    canary: int | None = Field(default=None, exclude_if=absent)


class AgentRolledBack(Event):
    """`number` is active again, `former` no longer."""

    NAME: ClassVar[str] = "agent.rolled_back"

    agent_id: str
    number: int
    former: int
    canary: int | None = Field(default=None, exclude_if=absent)


class AgentVersionRetired(Event):
    """No new run takes it, by number or otherwise."""

    NAME: ClassVar[str] = "agent.version_retired"

    agent_id: str
    number: int
