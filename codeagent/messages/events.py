"""What can happen. The first group is a run's own stream, which clients see; the second one stream an effect."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import Data, FinishReason, ToolCall, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.executions import EgressConnection, FilesChanged, OutputTold, ResourceUse
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    ApprovalRequest,
    Artifact,
    Files,
    Outcome,
    RunLimits,
    RunStatus,
    Source,
    Turn,
    absent,
)
from codeagent.messages.verification import PatchVerdict, Verification

StepName = Literal["prepare", "think", "collect", "verify"]


class Ending(Data):
    """A terminal state already decided."""

    status: RunStatus
    reason: str
    message: str = ""


class RunSubmitted(Event):
    NAME: ClassVar[str] = "run.submitted"

    run_id: str
    task: str
    source: Source
    agent: str
    agent_version: int
    definition: AgentDefinition | None = Field(default=None, exclude_if=absent)
    model: str
    limits: RunLimits
    approvals: ApprovalPolicy | None = Field(default=None, exclude_if=absent)
    verification: Verification | None = Field(default=None, exclude_if=absent)
    fingerprint: str
    principal: str
    deadline_at: datetime
    project_id: str | None = Field(default=None, exclude_if=absent)
    session_id: str | None = Field(default=None, exclude_if=absent)
    continues: Files | None = Field(default=None, exclude_if=absent)
    """The files that the session's runs before it have left."""
    history: tuple[Turn, ...] | None = Field(default=None, exclude_if=absent)
    """What was said in them, oldest first."""


class RunStarted(Event):
    NAME: ClassVar[str] = "run.started"

    attempt: int = 1


class StepStarted(Event):
    """`effect_id` is the model call (`think`) or the sandbox operation that the step waits for.

    `ending` is set on `collect` and `verify`: how the run will end once its patch is stored, and has passed.
    """

    NAME: ClassVar[str] = "run.step.started"

    step: int
    name: StepName
    effect_id: UUID
    ending: Ending | None = None


class StepCompleted(Event):
    """`base` is set by the step that prepared the files."""

    NAME: ClassVar[str] = "run.step.completed"

    step: int
    name: StepName
    base: str | None = None
    checkpoint: str | None = None


class MessageCompleted(Event):
    """A model's whole message. Long text travels as an artifact: `text` is then an excerpt."""

    NAME: ClassVar[str] = "message.completed"

    effect_id: UUID
    step: int
    attempt: int
    text: str
    text_ref: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason
    model: str
    usage: Usage
    cost_usd: Decimal | None = None


class ToolCallStarted(Event):
    NAME: ClassVar[str] = "tool.call.started"

    tool_call_id: str
    name: str
    step: int
    effect_id: UUID
    arguments_digest: str


class ToolCallCompleted(Event):
    """The tool ran, whatever its exit status. `output` is what the model is told; the whole is at `output_ref`; `used`
    is set where it was a command."""

    NAME: ClassVar[str] = "tool.call.completed"

    tool_call_id: str
    name: str
    step: int
    effect_id: UUID
    attempt: int
    output: str
    output_ref: str | None = None
    reason: str
    exit_code: int | None = None
    duration_seconds: float = 0.0
    checkpoint: str
    used: CommandUse | None = Field(default=None, exclude_if=absent)


class ToolCallFailed(Event):
    """The tool did not run: the call was malformed, or the sandbox failed. The model is told `error`. `retryable` is
    set where the sandbox failed: whether the same may succeed another time."""

    NAME: ClassVar[str] = "tool.call.failed"

    tool_call_id: str
    name: str
    step: int
    effect_id: UUID | None = None
    attempt: int = 0
    code: str
    error: str
    retryable: bool | None = Field(default=None, exclude_if=absent)


class ArtifactCreated(Event):
    NAME: ClassVar[str] = "artifact.created"

    artifact: Artifact


class InputRequired(Event):
    """The run waits for a person, and its deadline with it. `run.resumed` or the run's end follows."""

    NAME: ClassVar[str] = "run.input_required"

    request: ApprovalRequest


class InputReceived(Event):
    """A person has answered. Of several answers the first to arrive is here; `principal` gave it."""

    NAME: ClassVar[str] = "run.input_received"

    approval_id: str
    decision: ApprovalDecision
    comment: str = ""
    principal: str


class InputExpired(Event):
    """Nobody has answered in time."""

    NAME: ClassVar[str] = "run.input_expired"

    approval_id: str


class RunResumed(Event):
    """The run goes on. `deadline_at` is later than before by the time that it waited."""

    NAME: ClassVar[str] = "run.resumed"

    deadline_at: datetime


class CancelRequested(Event):
    NAME: ClassVar[str] = "run.cancel_requested"

    principal: str
    reason: str = ""


class RunVerified(Event):
    """The run's patch was judged in a workspace of its own. `restored` are the first of the protected files that it
    changes: there they were as the source has them. `reason` and `exit_code` tell how the command ended, `output` what
    it wrote, or the beginning and the end of it, whole in `output_ref`."""

    NAME: ClassVar[str] = "run.verified"

    effect_id: UUID
    attempt: int
    verdict: PatchVerdict
    reason: str
    exit_code: int | None = None
    output: str = ""
    output_ref: str | None = None
    restored: tuple[str, ...] = ()
    duration_seconds: float = 0.0
    used: CommandUse | None = Field(default=None, exclude_if=absent)


class RunEnded(Event):
    """Base of the four terminal events: exactly one ends every run."""

    status_reason: str = ""
    message: str = ""
    steps: int = 0
    usage: Usage = Usage()
    cost_usd: Decimal = Decimal(0)
    patch: Artifact | None = None


class RunCompleted(RunEnded):
    NAME: ClassVar[str] = "run.completed"


class RunFailed(RunEnded):
    NAME: ClassVar[str] = "run.failed"


class RunCanceled(RunEnded):
    NAME: ClassVar[str] = "run.canceled"


class RunRejected(RunEnded):
    NAME: ClassVar[str] = "run.rejected"


class CallEnded(Event):
    """The recorded end of one model call, on its own stream: what it asked, what it used, what it cost."""

    NAME: ClassVar[str] = "provider.call.ended"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    model: str
    response_model: str = ""
    request_digest: str = ""
    reply_digest: str = ""
    finish_reason: FinishReason | None = None
    error_reason: str | None = None
    usage: Usage
    cost_usd: Decimal | None = None
    tries: int = 1
    duration_seconds: float


class ExecEnded(Event):
    """The recorded end of one sandbox operation, on its own stream. `memory_limit_bytes` and `output_bytes` are those
    of its command, where it was one; `egress` are the connections that it asked its proxy for, where it had one, in
    their order; `retryable` is set where it failed."""

    NAME: ClassVar[str] = "sandbox.exec.ended"

    effect_id: UUID
    run_id: str
    attempt: int
    outcome: Outcome
    operation: str
    tool: str | None = None
    input_digest: str = ""
    reason: str
    exit_code: int | None = None
    limits_hit: tuple[str, ...] = ()
    driver: str
    level: int
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    output_digest: str = ""
    checkpoint: str | None = None
    duration_seconds: float
    signal: int | None = Field(default=None, exclude_if=absent)
    used: ResourceUse | None = Field(default=None, exclude_if=absent)
    stdout: OutputTold | None = Field(default=None, exclude_if=absent)
    stderr: OutputTold | None = Field(default=None, exclude_if=absent)
    changed: FilesChanged | None = Field(default=None, exclude_if=absent)
    egress: tuple[EgressConnection, ...] | None = Field(default=None, exclude_if=absent)
    memory_limit_bytes: int | None = Field(default=None, exclude_if=absent)
    output_bytes: int | None = Field(default=None, exclude_if=absent)
    retryable: bool | None = Field(default=None, exclude_if=absent)
