"""Bodies of requests and answers, in the API's own words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from codeagent.edge.amounts import Amount
from codeagent.edge.approval_models import ApprovalModel
from codeagent.edge.artifact_models import ArtifactModel
from codeagent.edge.model_names import FallbacksBody
from codeagent.messages.sandbox_limits import SandboxLimits
from codeagent.messages.values import (
    ApprovalDecision,
    ApprovalPolicy,
    Assignment,
    Digest,
    LimitsAsked,
    RunStatus,
    absent,
)
from codeagent.messages.verification import USUALLY_PROTECTED, PatchVerdict, PathPattern, Verification
from codeagent.projections.runs import RunRow
from codeagent.projections.view import RunView
from codeagent.sandboxes.protocol import DEFAULT_IMAGE


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, BaseModel):
        return any(_holds_nul(each) for _, each in value)
    if isinstance(value, Mapping):
        return any(_holds_nul(each) for pair in value.items() for each in pair)
    return isinstance(value, list | tuple | set | frozenset) and any(map(_holds_nul, value))


class Strict(BaseModel):
    """Requests refuse fields they do not know: a misspelt limit must not pass for no limit. And NUL in text, however
    deep it lies, which PostgreSQL keeps in none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        if _holds_nul(value):
            raise PydanticCustomError("nul_character", "Text must not hold the character NUL")
        return value


def _no_boolean(value: object) -> object:
    # The library would take `true` for 1.
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


NO_BOOLEAN = BeforeValidator(_no_boolean)
Whole = Annotated[int, NO_BOOLEAN]
"""A whole number of a request's body. Bounds of one that may be null stand before `NO_BOOLEAN`: the library would not
write those after it into the document as it should."""


class ArchiveSourceBody(Strict):
    kind: Literal["archive"]
    digest: Digest = Field(description="Digest of an archive uploaded to /v1/artifacts.")


ProjectId = Annotated[str, Field(pattern=r"^prj_[0-9a-z]{26}$")]
RunId = Annotated[str, Field(pattern=r"^run_[0-9a-z]{26}$")]
SessionId = Annotated[str, Field(pattern=r"^ses_[0-9a-z]{26}$")]
GitRef = Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]


class GitSourceBody(Strict):
    kind: Literal["git"]
    url: str = Field(max_length=2_000, description="https address of a public repository, or of the project's own.")
    ref: GitRef = "HEAD"


Usd = Annotated[Decimal, Amount(most=100_000, places=9)]
"""More than 0 and at most 100,000 US dollars, as a number or in text."""


class SandboxBody(SandboxLimits, extra="forbid"):
    """What the commands may use, within what the operator allows: each, and those of `total_` all together. A total
    that is used up ends the run before its next command as `failed` with `sandbox_limit_exceeded`."""

    _whole = field_validator("*", mode="before")(_no_boolean)


class LimitsBody(LimitsAsked, extra="forbid"):
    """What the run may use; what is left out takes its default."""

    max_cost_usd: Usd | None = None
    sandbox: SandboxBody | None = Field(default=None, exclude_if=absent)

    _whole = field_validator("max_steps", "max_tokens", "deadline_seconds", "command_timeout_seconds", mode="before")(
        _no_boolean
    )


class ApprovalsBody(Strict):
    """Which tool calls a person is asked about before they are carried out: named tools, or all that may change
    files; and after how long the run gives up waiting for an answer."""

    tools: Literal["all_changing"] | Annotated[tuple[str, ...], Field(min_length=1, max_length=20)]
    expires_seconds: Whole = Field(default=86_400, ge=5, le=604_800)

    def policy(self) -> ApprovalPolicy:
        return ApprovalPolicy.model_validate(self.model_dump())


class VerificationBody(Strict):
    """What judges the run's patch once its agent has submitted: a command, in a fresh checkout of the source with the
    patch, in which the files that `protected` names are as the source has them. The run completes only if the command
    exits with 0, else it fails with `verification_failed`; its patch is kept.

    A pattern is a path from the top, or without a slash a name anywhere; `*` and `?` stand for parts of a name, `**`
    for directories; a directory stands for all in it."""

    command: str = Field(min_length=1, max_length=4_000, examples=["python -m pytest -q"])
    protected: tuple[PathPattern, ...] = Field(default=USUALLY_PROTECTED, max_length=50, examples=[["tests/"]])
    timeout_seconds: Whole = Field(default=300, ge=1, le=1_800)

    def value(self) -> Verification:
        return Verification.model_validate(self.model_dump())


class RunBody(Strict):
    """A run to start. What it leaves out its session says, or its project. `approvals` adds to what its agent
    demands; without either nobody is asked."""

    task: str = Field(min_length=1, max_length=32_000, examples=["Make the tests pass."])
    source: Annotated[ArchiveSourceBody | GitSourceBody, Field(discriminator="kind")] | None = Field(
        default=None, description="May be left out in a project (its repository) and is in a session that has files."
    )
    agent: str = Field(
        default="coder",
        max_length=100,
        description="Name of the agent, whose active version the run is given, or `name@number` for another one.",
        examples=["coder", "reviewer@3"],
    )
    model: str | None = Field(default=None, max_length=200, examples=["builtin/repair"])
    limits: LimitsBody = LimitsBody()
    project_id: ProjectId | None = Field(default=None, description="The project whose run it is.")
    session_id: SessionId | None = Field(default=None, description="The session that it goes on with.")

    # Left out where it is not used: the fingerprint of a body stays what it was before there were approvals.
    approvals: ApprovalsBody | None = Field(default=None, exclude_if=absent)
    verification: VerificationBody | None = Field(default=None, exclude_if=absent)
    fallbacks: FallbacksBody | None = Field(default=None, exclude_if=absent)

    @property
    def given_agent(self) -> str | None:
        """None where the client names none."""
        return self.agent if "agent" in self.model_fields_set else None

    def fingerprint(self) -> str:
        """The same for bodies that say the same. Fields that came later count where they are given, so that the log
        knows a body again that is older than they are."""
        left_out = {name for name in ("project_id", "session_id") if getattr(self, name) is None}
        return sha256(self.__pydantic_serializer__.to_json(self, exclude=left_out)).hexdigest()


class CancelBody(Strict):
    """Why a run is canceled, for those who look at it later."""

    reason: str = Field(default="", max_length=1_000)


class AnswerBody(Strict):
    """A person's answer. `allow_always` counts for the tool until the run ends. The model is told the comment of a
    rejection; whoever may read the run sees every comment."""

    decision: ApprovalDecision
    comment: str = Field(default="", max_length=2_000)


class UsageModel(BaseModel):
    input_tokens: int
    output_tokens: int
    cost_usd: str


class VerdictModel(BaseModel):
    """What came of a verification. `restored` are protected files that the patch changes; `output` is what the command
    wrote, whole in the artifact `output_ref` where it is long."""

    verdict: PatchVerdict
    reason: str
    exit_code: int | None
    output: str
    output_ref: str | None
    restored: tuple[str, ...]


class RunModel(BaseModel):
    """A run. `version` is the number of its events so far, and the last `id` of its stream."""

    id: str
    status: RunStatus
    status_reason: str
    message: str
    version: int
    task: str
    agent: str
    agent_version: int
    assignment: Assignment | None
    model: str
    fallbacks: list[str]
    project_id: str | None
    session_id: str | None
    replays_run_id: str | None = Field(description="The run whose conversation it goes on with.")
    parent_run_id: str | None
    image: str = Field(description="What its commands see: an image of the installation.")
    source: dict[str, Any] | None
    limits: dict[str, Any] | None
    approvals: ApprovalPolicy | None
    pending_approvals: list[ApprovalModel]
    verification: Verification | None
    verdict: VerdictModel | None
    steps: int
    usage: UsageModel
    artifacts: list[ArtifactModel]
    cancel_requested_at: datetime | None
    deadline_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, view: RunView, reason: str = "") -> Self:
        """`reason` is why the run was canceled, in the words of whoever did."""
        return cls(
            id=view.run_id,
            status=view.status,
            status_reason=view.status_reason,
            message=view.message or reason,
            version=view.version,
            task=view.task,
            agent=view.agent,
            agent_version=view.agent_version,
            assignment=view.assignment,
            model=view.model,
            fallbacks=list(view.fallbacks),
            project_id=view.project_id,
            session_id=view.session_id,
            replays_run_id=None if view.replays is None else view.replays.run_id,
            parent_run_id=view.parent_run_id,
            image=view.image or DEFAULT_IMAGE,
            source=None if view.source is None else view.source.model_dump(mode="json"),
            limits=None if view.limits is None else view.limits.model_dump(mode="json"),
            approvals=view.approval_policy,
            pending_approvals=[ApprovalModel.of(view.run_id, approval) for approval in view.approvals.pending],
            verification=view.verification,
            verdict=None if view.verified is None else VerdictModel.model_validate(view.verified, from_attributes=True),
            steps=view.steps,
            usage=UsageModel(
                input_tokens=view.usage.input_tokens,
                output_tokens=view.usage.output_tokens,
                cost_usd=str(view.cost_usd),
            ),
            artifacts=[ArtifactModel.of(artifact) for artifact in view.artifacts],
            cancel_requested_at=view.cancel_requested_at,
            deadline_at=view.deadline_at,
            created_at=view.created_at,
            updated_at=view.updated_at,
        )


class RunSummary(BaseModel):
    """A run in a list. `task` may be an excerpt."""

    id: str
    status: RunStatus
    status_reason: str
    version: int
    task: str
    agent: str
    agent_version: int
    model: str
    project_id: str | None
    session_id: str | None
    parent_run_id: str | None
    replays_run_id: str | None = Field(description="The run whose conversation it goes on with.")
    steps: int
    usage: UsageModel
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: RunRow) -> Self:
        usage = UsageModel(input_tokens=row.input_tokens, output_tokens=row.output_tokens, cost_usd=str(row.cost_usd))
        same = cls.model_fields.keys() & RunRow.__dataclass_fields__.keys() - {"status"}
        copied = {name: getattr(row, name) for name in same}
        return cls(id=row.run_id, status=RunStatus(row.status), usage=usage, **copied)


class RunPage(BaseModel):
    """Runs, newest first. `next_cursor` continues the list; None at its end."""

    items: list[RunSummary]
    next_cursor: str | None
