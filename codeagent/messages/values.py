"""Values that several commands and events share."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from codeagent.messages.conversation import Data, ToolCall
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.verification import Verification


def absent(value: object) -> bool:
    """For fields that are left out of the JSON when there is nothing to say: what was stored before there was such a
    field, and what is, are the same bytes, and readers that do not know the field never see it."""
    return value is None


Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""Name of an artifact's bytes: `sha256:` and 64 hexadecimal digits."""

BASE_CHECKPOINT = ""
"""The checkpoint of files nobody has changed yet."""


class RunStatus(StrEnum):
    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    AUTH_REQUIRED = "auth_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    REJECTED = "rejected"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELED, RunStatus.REJECTED})


class ArchiveSource(Data):
    """Files uploaded beforehand as one archive artifact."""

    kind: Literal["archive"] = "archive"
    digest: Digest


class GitSource(Data):
    """A public https repository at a ref, fetched in a sandbox of its own."""

    kind: Literal["git"] = "git"
    url: str
    ref: str


Source = Annotated[ArchiveSource | GitSource, Field(discriminator="kind")]


class RunLimits(Data):
    """What a run may use. Reaching one ends the run as `failed` with the reason that names it."""

    max_steps: int = Field(default=50, ge=1, le=1000)
    """Model calls."""
    max_tokens: int = Field(default=2_000_000, ge=1_000, le=100_000_000)
    """Input and output tokens of all model calls together."""
    max_cost_usd: Decimal | None = Field(default=None, gt=0, le=100_000)
    deadline_seconds: int = Field(default=1800, ge=5, le=86_400)
    command_timeout_seconds: int = Field(default=120, ge=1, le=1800)
    sandbox: SandboxLimits | None = Field(default=None, exclude_if=absent)


class ApprovalPolicy(Data):
    """Which tool calls wait for a person's answer, and how long: named tools, or all that may change files."""

    tools: Literal["all_changing"] | tuple[str, ...]
    expires_seconds: int = Field(default=86_400, ge=5, le=604_800)


class ApprovalDecision(StrEnum):
    """What a person may answer. `allow_always` counts for the tool, until the run ends."""

    ALLOW_ONCE = "allow_once"
    ALLOW_ALWAYS = "allow_always"
    REJECT = "reject"


class ApprovalRequest(Data):
    """What a person is asked: whether one tool call may be carried out.

    `arguments` is the JSON text as the model wrote it, whole, or empty where it is the artifact `arguments_ref`:
    nobody is asked about a part. `arguments_digest` is that of the `tool.call.started` that follows if it is allowed.
    """

    approval_id: str
    kind: Literal["tool_call"] = "tool_call"
    tool_call_id: str
    tool: str
    arguments: str
    arguments_ref: str | None = None
    arguments_digest: str
    reason: str
    decisions: tuple[ApprovalDecision, ...] = tuple(ApprovalDecision)
    requested_at: datetime
    expires_at: datetime


class LimitsAsked(Data):
    """Limits as far as somebody says them: of a request, or of an agent's version. None says nothing."""

    max_steps: int | None = Field(default=None, ge=1, le=1000)
    max_tokens: int | None = Field(default=None, ge=1_000, le=100_000_000)
    max_cost_usd: Decimal | None = Field(default=None, gt=0, le=100_000)
    deadline_seconds: int | None = Field(default=None, ge=5, le=86_400)
    command_timeout_seconds: int | None = Field(default=None, ge=1, le=1800)
    sandbox: SandboxLimits | None = Field(default=None, exclude_if=absent)


class AgentDefinition(Data):
    """What a run works by that is not of the built-in agent: the rest of it, name, version, model and limits, is the
    run's own. It is the run's for good, whatever becomes of the agent meanwhile."""

    id: str
    digest: Digest
    instructions: str
    tools: tuple[str, ...]
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
    """What its commands may reach, as `name:port` or `*.name:port`; nothing without it."""


class Artifact(Data):
    """A named, immutable blob: a patch, a long output, an upload."""

    name: str
    media_type: str
    size_bytes: int
    digest: Digest


class Files(Data):
    """Files at a checkpoint: the plain archive of a source, and the patch on it."""

    base: Digest
    checkpoint: str = BASE_CHECKPOINT


class Turn(Data):
    """An earlier run of a session, in words. Both may be excerpts."""

    task: str
    answer: str
    status: RunStatus


class PrepareFiles(Data):
    """Put the source's files into a fresh workspace; `continues`, where given, in the place of the source's own.
    `project_id` names the project whose git credential opens the source, where there is one."""

    kind: Literal["prepare"] = "prepare"
    source: Source
    project_id: str | None = Field(default=None, exclude_if=absent)
    continues: Files | None = Field(default=None, exclude_if=absent)


class CallTool(Data):
    """Carry out one tool call of the model."""

    kind: Literal["tool"] = "tool"
    call: ToolCall
    timeout_seconds: int


class CollectPatch(Data):
    """Store the difference between the workspace and its source as a patch artifact."""

    kind: Literal["collect"] = "collect"


class VerifyPatch(Data):
    """Judge the run's patch in a workspace of its own."""

    kind: Literal["verify"] = "verify"
    verification: Verification


Operation = Annotated[PrepareFiles | CallTool | CollectPatch | VerifyPatch, Field(discriminator="kind")]


class Outcome(StrEnum):
    """How an effect ended, for whoever asked for it."""

    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"
    WORKER_LOST = "worker_lost"
