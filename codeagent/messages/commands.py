"""What may be ordered. Each command is answered by events on the run's stream, whatever happens to it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.envelope import Command
from codeagent.messages.personal import COMMENT, CONTENT_DIGEST, CONTENT_REF, TASK, Personal
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.subagents import Parent
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    Dependencies,
    Digest,
    Fallbacks,
    Files,
    ImageName,
    Operation,
    Replays,
    RunLimits,
    Source,
    Turn,
    absent,
)
from codeagent.messages.verification import Verification

MOST_FOLLOWED = 20
"""Runs of a session that the next one remembers."""


class SubmitRun(Command):
    """Start a run, on values that are all resolved. `definition` is the version of its agent, None for the built-in
    one; without `approvals` nobody is asked for anything, without `verification` nobody judges; `fingerprint` is the
    digest of the request's body, so that a key reused for another body is seen."""

    NAME: ClassVar[str] = "run.submit"

    run_id: str
    task: Annotated[str, TASK] = Field(min_length=1, max_length=32_000)
    source: Source
    agent: str
    agent_version: int = 1
    definition: AgentDefinition | None = Field(default=None, exclude_if=absent)
    model: str
    fallbacks: Fallbacks | None = Field(default=None, exclude_if=absent)
    limits: RunLimits
    approvals: ApprovalPolicy | None = Field(default=None, exclude_if=absent)
    verification: Verification | None = Field(default=None, exclude_if=absent)
    fingerprint: Annotated[str, CONTENT_DIGEST]
    image: ImageName | None = Field(default=None, exclude_if=absent)
    """What its commands see; None for what they see where nobody says."""
    project_id: str | None = Field(default=None, exclude_if=absent)
    session_id: str | None = Field(default=None, exclude_if=absent)
    continues: Files | None = Field(default=None, exclude_if=absent)
    """The files that the session's runs before it have left."""
    follows: tuple[str, ...] | None = Field(default=None, exclude_if=absent, max_length=MOST_FOLLOWED)
    """Those runs, oldest first: what was said in them is read where it stands, while it may be."""
    history: tuple[Turn, ...] | None = Field(default=None, exclude_if=absent)
    """What was said in them, as it was copied before `follows` named them. Nothing sets it any more."""
    dependencies: Dependencies | None = Field(default=None, exclude_if=absent)
    replays: Replays | None = Field(default=None, exclude_if=absent)
    """Whose conversation it goes on with; `continues` are then the files of that moment."""
    parent: Parent | None = Field(default=None, exclude_if=absent)
    """The run that has started it, where it was no client."""


class CancelRun(Command):
    """Stop a run. Before its submit has arrived it opens the stream, and the submit then ends `canceled`."""

    NAME: ClassVar[str] = "run.cancel"

    run_id: str
    reason: Annotated[str, Personal("telling why", "what the user wrote")] = Field(default="", max_length=1_000)


class AnswerApproval(Command):
    """A person's answer to what a run asks. It counts if the run still waits for it when the answer arrives."""

    NAME: ClassVar[str] = "run.answer"

    run_id: str
    approval_id: str
    decision: ApprovalDecision
    comment: Annotated[str, COMMENT] = Field(default="", max_length=2_000)


Timer = Literal["deadline", "cancel_grace", "approval_expiry", "child"]
"""`child`: a child run should have answered by now."""


class FireTimer(Command):
    """A due moment of a run, sent by whoever sweeps the ledger. `timer_id` is the ledger row."""

    NAME: ClassVar[str] = "run.timer.fire"

    run_id: str
    timer_id: UUID
    timer: Timer


class GenerateReply(Command):
    """Ask a model for its next message, or the first of `fallbacks` that can answer where it cannot. What it is told is
    folded from the run's stream up to `at_version`, so that the command stays small however long the run."""

    NAME: ClassVar[str] = "provider.generate"

    effect_id: UUID
    run_id: str
    at_version: int
    model: str
    max_output_tokens: int
    fallbacks: Fallbacks | None = Field(default=None, exclude_if=absent)


class ExecuteOperation(Command):
    """Do one thing in the run's sandbox, on the files of `base` with `checkpoint` applied. `limits` are the run's own,
    which the worker lowers to what its operator allows; so are the hosts of `egress`, which its commands may reach.
    `image` names what commands see, None for the usual one, `dependencies` the archive of what was installed for
    them."""

    NAME: ClassVar[str] = "sandbox.execute"

    effect_id: UUID
    run_id: str
    base: Annotated[Digest | None, CONTENT_REF]
    checkpoint: Annotated[str, CONTENT_DIGEST]
    operation: Operation
    limits: SandboxLimits | None = Field(default=None, exclude_if=absent)
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
    image: ImageName | None = Field(default=None, exclude_if=absent)
    dependencies: Digest | None = Field(default=None, exclude_if=absent)
