"""Runs that other runs have started: who their parent is, what is told of them there, and what they answer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import Data, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.personal import CONTENT_DIGEST, CONTENT_REF, Personal
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.values import BASE_CHECKPOINT, Artifact, Digest, RunLimits, RunStatus, absent


class Parent(Data):
    """The run that has started a child, and the effect that it waits for meanwhile. `principal` is who submitted the
    first run of the chain; the child ends at `deadline_at`, whatever it waits for."""

    run_id: str
    effect_id: UUID
    principal: str
    deadline_at: datetime


class SubagentEnded(Event):
    """Base of what is told of a child run that has ended: how, and what it used, with the use of
    its own children."""

    effect_id: UUID
    child_run_id: str
    status: RunStatus
    status_reason: str = ""
    steps: int = 0
    usage: Usage = Usage()
    cost_usd: Decimal = Decimal(0)
    used: CommandUse = CommandUse()
    """By its commands."""
    checkpoint: Annotated[str, CONTENT_DIGEST] = BASE_CHECKPOINT
    """Its files as it left them, as a patch on those that its parent has prepared."""
    patch: Artifact | None = Field(default=None, exclude_if=absent)


class SubagentResult(SubagentEnded):
    """Answers the `run.submit` of a child run, in the same commit as its end. `run_id` is the parent. `text` is the
    child's last word, or the beginning of it, then whole in the artifact `text_ref`."""

    NAME: ClassVar[str] = "subagent.result"

    run_id: str
    text: Annotated[str, Personal("the agent's work", "may repeat what the user wrote")] = ""
    text_ref: Annotated[Digest | None, CONTENT_REF] = Field(default=None, exclude_if=absent)


class SubagentStarted(Event):
    """A tool call that has become a run of its own, on a part of what its parent has left."""

    NAME: ClassVar[str] = "subagent.started"

    tool_call_id: str
    effect_id: UUID
    child_run_id: str
    agent: str
    agent_version: int
    limits: RunLimits
    deadline_at: datetime


class SubagentCompleted(SubagentEnded):
    """The child has completed: its parent goes on with its files."""

    NAME: ClassVar[str] = "subagent.completed"


class SubagentFailed(SubagentEnded):
    """The child has ended otherwise: its files are left out. Of one of which nothing was heard in time
    (`subagent_lost`) the whole of what it could spend counts as spent."""

    NAME: ClassVar[str] = "subagent.failed"
