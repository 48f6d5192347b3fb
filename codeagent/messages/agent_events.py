"""What happens to an agent's definition: the stream `agent-<id>`, written with the rows that it changes.

Runs are not told of any of it: each carries the version it was given.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from codeagent.messages.envelope import Event
from codeagent.messages.values import ApprovalPolicy, Digest, LimitsAsked, absent


class AgentCreated(Event):
    NAME: ClassVar[str] = "agent.created"

    agent_id: str
    name: str
    description: str


class AgentUpdated(Event):
    NAME: ClassVar[str] = "agent.updated"

    agent_id: str
    description: str


class AgentArchived(Event):
    """No new run takes it; those that have begun go on."""

    NAME: ClassVar[str] = "agent.archived"

    agent_id: str


class AgentVersionCreated(Event):
    """A draft. `digest` is over the canonical JSON of what follows it."""

    NAME: ClassVar[str] = "agent.version_created"

    agent_id: str
    number: int
    digest: Digest
    instructions: str
    model: str | None
    tools: tuple[str, ...]
    limits: LimitsAsked
    approvals: ApprovalPolicy | None = Field(default=None, exclude_if=absent)
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)


class AgentVersionPromoted(Event):
    """New runs that name no version get this one. `former` is the version that they got until now, if any."""

    NAME: ClassVar[str] = "agent.version_promoted"

    agent_id: str
    number: int
    former: int | None


class AgentRolledBack(Event):
    """`number` is active again, `former` no longer."""

    NAME: ClassVar[str] = "agent.rolled_back"

    agent_id: str
    number: int
    former: int


class AgentVersionRetired(Event):
    """No new run takes it, by number or otherwise."""

    NAME: ClassVar[str] = "agent.version_retired"

    agent_id: str
    number: int
