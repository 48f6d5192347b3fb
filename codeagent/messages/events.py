"""What can happen. The first group is a run's own stream, which clients see; the second one stream an effect."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from codeagent.messages.conversation import Data, FinishReason, ToolCall, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.executions import EgressConnection, FilesChanged, Installed, OutputTold, ResourceUse
from codeagent.messages.personal import COMMENT, CONTENT_DIGEST, CONTENT_REF, FILE_NAMES, TASK, Personal
from codeagent.messages.sandbox_limits import CommandUse
from codeagent.messages.subagents import Parent
from codeagent.messages.values import (
    AgentDefinition,
    ApprovalDecision,
    ApprovalPolicy,
    ApprovalRequest,
    Artifact,
    Dependencies,
    Digest,
    Fallbacks,
    Files,
    Outcome,
    Replays,
    RunLimits,
    RunStatus,
    Source,
    Turn,
    absent,
)
from codeagent.messages.verification import PatchVerdict, Verification

StepName = Literal["prepare", "install", "think", "collect", "verify"]


class Ending(Data):
    """A terminal state already decided."""

    status: RunStatus
    reason: str
    message: Annotated[str, Personal("telling how a run ended", "may repeat what the user wrote")] = ""


class RunSubmitted(Event):
    NAME: ClassVar[str] = "run.submitted"

    run_id: str
    task: Annotated[str, TASK]
    source: Source
    agent: str
    agent_version: int
    definition: AgentDefinition | None = Field(default=None, exclude_if=absent)
    model: str
    fallbacks: Fallbacks | None = Field(default=None, exclude_if=absent)
    limits: RunLimits
    approvals: ApprovalPolicy | None = Field(default=None, exclude_if=absent)
    verification: Verification | None = Field(default=None, exclude_if=absent)
    fingerprint: Annotated[str, CONTENT_DIGEST]
    principal: str
    deadline_at: datetime
    image: str | None = Field(default=None, exclude_if=absent)
    project_id: str | None = Field(default=None, exclude_if=absent)
    session_id: str | None = Field(default=None, exclude_if=absent)
    continues: Files | None = Field(default=None, exclude_if=absent)
    """The files that the session's runs before it have left."""
    follows: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
    """Those runs, oldest first."""
    history: tuple[Turn, ...] | None = Field(default=None, exclude_if=absent)
    """What was said in them, as it was copied before `follows` named them."""
    dependencies: Dependencies | None = Field(default=None, exclude_if=absent)
    """As its project had them."""
    replays: Replays | None = Field(default=None, exclude_if=absent)
    parent: Parent | None = Field(default=None, exclude_if=absent)


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
    """`base` is set by the step that prepared the files, `dependencies` by the one that installed what they need."""

    NAME: ClassVar[str] = "run.step.completed"

    step: int
    name: StepName
    base: Annotated[str | None, CONTENT_REF] = None
    checkpoint: Annotated[str | None, CONTENT_REF] = None
    dependencies: Digest | None = Field(default=None, exclude_if=absent)


class MessageCompleted(Event):
    """A model's whole message. Long text travels as an artifact: `text` is then an excerpt."""

    NAME: ClassVar[str] = "message.completed"

    effect_id: UUID
    step: int
    attempt: int
    text: Annotated[str, Personal("the agent's work", "may repeat what the user wrote")]
    text_ref: Annotated[str | None, CONTENT_REF] = None
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
    arguments_digest: Annotated[str, CONTENT_DIGEST]


class ToolCallCompleted(Event):
    """The tool ran, whatever its exit status. `output` is what the model is told; the whole is at `output_ref`; `used`
    is set where it was a command."""

    NAME: ClassVar[str] = "tool.call.completed"

    tool_call_id: str
    name: str
    step: int
    effect_id: UUID
    attempt: int
    output: Annotated[str, Personal("the agent's work", "may hold what is in the repository")]
    output_ref: Annotated[str | None, CONTENT_REF] = None
    reason: str
    exit_code: int | None = None
    duration_seconds: float = 0.0
    checkpoint: Annotated[str, CONTENT_DIGEST]
    used: CommandUse | None = Field(default=None, exclude_if=absent)


class ToolCallFailed(Event):
    """The tool did not run: the call was malformed, or the sandbox failed. The model is told `error`. `retryable` is
    set where the sandbox failed: whether the same may succeed another time. `approval_id` is set where a person has
    refused the call: what they have written is in their `run.input_received`, and the model is told that as well."""

    NAME: ClassVar[str] = "tool.call.failed"

    tool_call_id: str
    name: str
    step: int
    effect_id: UUID | None = None
    attempt: int = 0
    code: str
    error: Annotated[str, Personal("the agent's work", "may hold what is in the repository")]
    retryable: bool | None = Field(default=None, exclude_if=absent)
    approval_id: str | None = Field(default=None, exclude_if=absent)


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
    comment: Annotated[str, COMMENT] = ""
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
    reason: Annotated[str, Personal("telling why", "what the user wrote")] = ""


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
    output: Annotated[str, Personal("telling why a patch passed or not", "may hold what is in the repository")] = ""
    output_ref: Annotated[str | None, CONTENT_REF] = None
    restored: Annotated[tuple[str, ...], FILE_NAMES] = ()
    duration_seconds: float = 0.0
    used: CommandUse | None = Field(default=None, exclude_if=absent)


class RunEnded(Event):
    """Base of the four terminal events: exactly one ends every run."""

    status_reason: str = ""
    message: Annotated[str, Personal("the run's result", "may repeat what the user wrote")] = ""
    steps: int = 0
    usage: Usage = Usage()
    cost_usd: Decimal = Decimal(0)
    patch: Artifact | None = None


class RunCompleted(RunEnded):
    NAME: ClassVar[str] = "run.completed"


class RunFailed(RunEnded):
    NAME: ClassVar[str] = "run.failed"


class RunCanceled(RunEnded):
    """Why is in `run.cancel_requested`, which is that of whoever canceled it."""

    NAME: ClassVar[str] = "run.canceled"


class RunRejected(RunEnded):
    NAME: ClassVar[str] = "run.rejected"


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
    input_digest: Annotated[str, CONTENT_DIGEST] = ""
    reason: str
    exit_code: int | None = None
    limits_hit: tuple[str, ...] = ()
    driver: str
    level: int
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    output_digest: Annotated[str, CONTENT_DIGEST] = ""
    checkpoint: Annotated[str | None, CONTENT_REF] = None
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
    installed: Installed | None = Field(default=None, exclude_if=absent)
