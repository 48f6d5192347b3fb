"""Values that several commands and events share."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from codeagent.messages.conversation import Data, ToolCall
from codeagent.messages.mcp import McpTools
from codeagent.messages.personal import CONTENT_DIGEST, CONTENT_NAME, CONTENT_REF, Personal
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.verification import Verification


def absent(value: object) -> bool:
    """For fields that are left out of the JSON when there is nothing to say: what was stored before there was such a
    field, and what is, are the same bytes, and readers that do not know the field never see it."""
    return value is None


Fallbacks = Annotated[tuple[str, ...], Field(max_length=4)]
"""Models, as `<provider>/<name>`, that stand in for another one that cannot answer: the first that can does."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""Name of an artifact's bytes: `sha256:` and 64 hexadecimal digits."""

IMAGE_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
ImageName = Annotated[str, Field(pattern=IMAGE_NAME)]
"""What an installation calls an image that sandboxes can have."""

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
ENDING_EVENTS = frozenset(f"run.{status}" for status in _TERMINAL)
"""Names of the events of which exactly one ends every run."""


class ArchiveSource(Data):
    """Files uploaded beforehand as one archive artifact."""

    kind: Literal["archive"] = "archive"
    digest: Annotated[Digest, CONTENT_NAME]


class GitSource(Data):
    """A public https repository at a ref, fetched in a sandbox of its own."""

    kind: Literal["git"] = "git"
    url: Annotated[str, Personal("fetching what to work on", "address of a repository")]
    ref: Annotated[str, Personal("fetching what to work on", "address of a repository")]


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
    arguments: Annotated[str, Personal("asking a person", "may hold what is in the repository")]
    arguments_ref: Annotated[str | None, CONTENT_REF] = None
    arguments_digest: Annotated[str, CONTENT_DIGEST]
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


class Assignment(Data):
    """By which rule a run got its version: it was `named` by its number, it is the `active` one, or the `canary`.
    `by` is what was drawn by, and `canary` names the canary by the version of the agent's stream with which it began:
    both are set where one was running and the run could have got either version. `deprecated`: another version has
    taken the place of this one."""

    rule: Literal["named", "active", "canary"]
    by: Literal["session", "project", "principal"] | None = None
    canary: int | None = None
    deprecated: bool = False


class CachePolicy(Data):
    """That replies of models are kept, and given again to whoever of the tenant asks the same: none that is older than
    `ttl_seconds`."""

    ttl_seconds: int = Field(ge=60, le=2_592_000)


class AgentDefinition(Data):
    """What a run works by that is not of the built-in agent: the rest of it, name, version, model and limits, is the
    run's own. It is the run's for good, whatever becomes of the agent meanwhile."""

    id: str
    digest: Digest
    instructions: Annotated[str, Personal("the agent's work", "what the user wrote")]
    tools: tuple[str, ...]
    egress: tuple[str, ...] | None = Field(default=None, exclude_if=absent)
    """What its commands may reach, as `name:port` or `*.name:port`; nothing without it."""
    assignment: Assignment | None = Field(default=None, exclude_if=absent)
    mcp: tuple[McpTools, ...] | None = Field(default=None, exclude_if=absent)
    """Tools of servers outside."""
    cache: CachePolicy | None = Field(default=None, exclude_if=absent)
    """Without it its models are always asked."""
    delegates: tuple[Delegate, ...] | None = Field(default=None, exclude_if=absent)
    """Whom its runs may hand work to."""


class Delegate(Data):
    """An agent's version that a run may hand work to, as it was when the first run of the chain was submitted: all that
    a child run is started with but its task and its files. `limits` are the most that a child can have of each."""

    name: str
    version: int
    description: str = ""
    definition: AgentDefinition | None = None
    model: str
    fallbacks: Fallbacks | None = Field(default=None, exclude_if=absent)
    limits: RunLimits
    approvals: ApprovalPolicy | None = Field(default=None, exclude_if=absent)


AgentDefinition.model_rebuild()


class Artifact(Data):
    """A named, immutable blob: a patch, a long output, an upload."""

    name: Annotated[str, Personal("telling artifacts apart", "may hold what is in the repository")]
    media_type: str
    size_bytes: int
    digest: Annotated[Digest, CONTENT_NAME]


class Files(Data):
    """Files at a checkpoint: the plain archive of a source, and the patch on it."""

    base: Annotated[Digest, CONTENT_NAME]
    checkpoint: Annotated[str, CONTENT_DIGEST] = BASE_CHECKPOINT


class Turn(Data):
    """An earlier run of a session, in words. Both may be excerpts."""

    task: Annotated[str, Personal("going on from earlier runs", "what the user wrote")]
    answer: Annotated[str, Personal("going on from earlier runs", "may repeat what the user wrote")]
    status: RunStatus


MOST_REPLAYED = 10
"""Runs, one replayed by the next, in which a conversation may have been had."""


class Replays(Data):
    """A run that has ended, whose conversation another goes on with: what was said in it up to a version of its stream.
    `runs` counts those in which it was had, with the ones that `run_id` had replayed itself."""

    run_id: str
    until_version: int = Field(ge=1)
    runs: int = Field(default=1, ge=1, le=MOST_REPLAYED)


LockFile = Annotated[
    str,
    Field(
        max_length=200,
        pattern=r"^\.?[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*(/\.?[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)*$",
        description="A path below the root of the repository.",
        examples=["requirements.txt"],
    ),
]


class Dependencies(Data):
    """How the dependencies of a project are installed: a shell command that writes below /dependencies, and the files
    of the repository that it sees, which say what it brings. While those are the same, what it brought before is used
    again."""

    install: str = Field(
        min_length=1,
        max_length=4_000,
        pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$",
        description="A command of bash. It sees the lock files and nothing else of the repository, and reaches the "
        "registries that the operator lists.",
    )
    lock_files: tuple[LockFile, ...] = Field(min_length=1, max_length=20)


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


class InstallDependencies(Data):
    """Have the dependencies of the files: as they are remembered, else installed now."""

    kind: Literal["install"] = "install"
    dependencies: Dependencies


class CollectPatch(Data):
    """Store the difference between the workspace and its source as a patch artifact."""

    kind: Literal["collect"] = "collect"


class VerifyPatch(Data):
    """Judge the run's patch in a workspace of its own."""

    kind: Literal["verify"] = "verify"
    verification: Verification


Operation = Annotated[
    PrepareFiles | InstallDependencies | CallTool | CollectPatch | VerifyPatch, Field(discriminator="kind")
]


class Outcome(StrEnum):
    """How an effect ended, for whoever asked for it."""

    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"
    WORKER_LOST = "worker_lost"
