"""What may be ordered. Each command is answered by events on the run's stream, whatever happens to it."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.envelope import Command
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    Digest,
    Files,
    Operation,
    RunLimits,
    Source,
    Turn,
    absent,
)
from codeagent.messages.verification import Verification


class SubmitRun(Command):
    """Start a run, on values that are all resolved. `definition` is the version of its agent, None for the built-in
    one; without `approvals` nobody is asked for anything, without `verification` nobody judges; `fingerprint` is the
    digest of the request's body, so that a key reused for another body is seen."""

    NAME: ClassVar[str] = "run.submit"

    run_id: str
    task: str = Field(min_length=1, max_length=32_000)
    source: Source
    agent: str
    agent_version: int = 1
    definition: AgentDefinition | None = Field(default=None, exclude_if=absent)
    model: str
    limits: RunLimits
    approvals: ApprovalPolicy | None = Field(default=None, exclude_if=absent)
    verification: Verification | None = Field(default=None, exclude_if=absent)
    fingerprint: str
    project_id: str | None = Field(default=None, exclude_if=absent)
    session_id: str | None = Field(default=None, exclude_if=absent)
    continues: Files | None = Field(default=None, exclude_if=absent)
    """The files that the session's runs before it have left."""
    history: tuple[Turn, ...] | None = Field(default=None, exclude_if=absent)
    """What was said in them, oldest first."""


class CancelRun(Command):
    """Stop a run. Before its submit has arrived it opens the stream, and the submit then ends `canceled`."""

    NAME: ClassVar[str] = "run.cancel"

    run_id: str
    reason: str = Field(default="", max_length=1_000)


class AnswerApproval(Command):
    """A person's answer to what a run asks. It counts if the run still waits for it when the answer arrives."""

    NAME: ClassVar[str] = "run.answer"

    run_id: str
    approval_id: str
    decision: ApprovalDecision
    comment: str = Field(default="", max_length=2_000)


class FireTimer(Command):
    """A due moment of a run, sent by whoever sweeps the ledger. `timer_id` is the ledger row."""

    NAME: ClassVar[str] = "run.timer.fire"

    run_id: str
    timer_id: UUID
    timer: Literal["deadline", "cancel_grace", "approval_expiry"]


class GenerateReply(Command):
    """Ask a model for its next message. What it is told is folded from the run's stream up to `at_version`,
    so that the command stays small however long the run."""

    NAME: ClassVar[str] = "provider.generate"

    effect_id: UUID
    run_id: str
    at_version: int
    model: str
    max_output_tokens: int


class ExecuteOperation(Command):
    """Do one thing in the run's sandbox, on the files of `base` with `checkpoint` applied. `limits` are the run's own,
    which the worker lowers to what its operator allows; so are the hosts of `egress`, which its commands may reach."""

    NAME: ClassVar[str] = "sandbox.execute"

    effect_id: UUID
    run_id: str
    base: Digest | None
    checkpoint: str
    operation: Operation
    limits: SandboxLimits | None = Field(default=None, exclude_if=absent)
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
