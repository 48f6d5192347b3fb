"""What happens to a canary: on the stream `agent-<id>` of its agent. Promoting a version, a rollback and archiving the
agent end it as well, and say so."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from codeagent.messages.canaries import CanaryPlan, CanaryVerdict
from codeagent.messages.envelope import Event
from codeagent.messages.values import absent


class AgentCanaryStarted(Event):
    """Of new runs that name no version, some get `number` and all others `active`. `canary` is the version of the
    canary that this ends, if any."""

    NAME: ClassVar[str] = "agent.canary_started"

    agent_id: str
    number: int
    active: int
    plan: CanaryPlan
    canary: int | None = Field(default=None, exclude_if=absent)


class AgentCanaryStopped(Event):
    """Somebody has ended it: new runs get the active version again."""

    NAME: ClassVar[str] = "agent.canary_stopped"

    agent_id: str
    number: int


class AgentCanaryRolledBack(Event):
    """It has broken one of its bounds: new runs get `active` again, the version that it was held against."""

    NAME: ClassVar[str] = "agent.canary_rolled_back"

    agent_id: str
    number: int
    active: int
    verdict: CanaryVerdict
