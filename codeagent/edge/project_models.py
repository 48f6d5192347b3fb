"""Bodies of requests and answers about projects."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.json_schema import SkipJsonSchema

from codeagent.edge.models import NO_BOOLEAN, GitRef, LimitsBody, Strict, VerificationBody
from codeagent.messages.project_events import ProjectSettings
from codeagent.messages.values import Dependencies, LimitsAsked, absent
from codeagent.messages.verification import Verification
from codeagent.projections.statistics import RunStatistics
from codeagent.projects.projects import Project

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["shop"])]
Repository = Annotated[str, Field(max_length=2_000, description="https address of a git repository.")]
AgentName = Annotated[str, Field(min_length=1, max_length=100)]
ModelName = Annotated[str, Field(min_length=1, max_length=200, examples=["builtin/repair"])]
ImageName = Annotated[str, Field(max_length=100, description="An image that this installation offers.")]


class QuotasBody(Strict):
    """How many runs a project may have; what is left out, or null, is not bounded. A day is one of UTC."""

    max_concurrent_runs: Annotated[int, Field(ge=1, le=10_000), NO_BOOLEAN] | None = None
    max_runs_per_day: Annotated[int, Field(ge=1, le=1_000_000), NO_BOOLEAN] | None = None


class DependenciesBody(Dependencies, extra="forbid"):
    """How the dependencies of the project's runs are installed: by a command that sees the lock files, and writes below
    /dependencies, whose `bin` then is where commands look first. What it brings is used again until the command, a lock
    file or the image changes. Without it nothing is installed."""

    def value(self) -> Dependencies:
        return Dependencies.model_validate(self.model_dump())


def _asked(limits: LimitsBody) -> LimitsAsked:
    return LimitsAsked(**limits.model_dump())


class ProjectBody(Strict):
    """A project to make: a repository, and what its runs use where they do not say."""

    name: Name
    repository: Repository
    default_ref: GitRef = "HEAD"
    agent: AgentName | None = None
    model: ModelName | None = None
    limits: LimitsBody = LimitsBody()
    image: ImageName = "default"
    quotas: QuotasBody = QuotasBody()
    # Left out where they are not used: the fingerprint of a body stays what it was before there were any.
    verification: VerificationBody | None = Field(default=None, exclude_if=absent)
    dependencies: DependenciesBody | None = Field(default=None, exclude_if=absent)

    def settings(self) -> ProjectSettings:
        said = self.model_dump(exclude={"limits", "quotas"})
        return ProjectSettings(**said, limits=_asked(self.limits), **self.quotas.model_dump())

    def fingerprint(self) -> str:
        return sha256(self.model_dump_json().encode()).hexdigest()


_NEEDED = ("name", "repository", "default_ref", "image")


class ProjectPatch(Strict):
    """What is to change; what is left out stays. `limits`, `quotas`, `verification` and `dependencies` are replaced as
    a whole; null takes a default agent or model away, the verification, or the dependencies."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: Name | SkipJsonSchema[None] = None
    repository: Repository | SkipJsonSchema[None] = None
    default_ref: GitRef | SkipJsonSchema[None] = None
    agent: AgentName | None = None
    model: ModelName | None = None
    limits: LimitsBody = LimitsBody()
    image: ImageName | SkipJsonSchema[None] = None
    quotas: QuotasBody = QuotasBody()
    verification: VerificationBody | None = None
    dependencies: DependenciesBody | None = None
    archived: bool = Field(default=False, description="False brings an archived project back.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing is to change")
        if gone := [name for name in _NEEDED if name in self.model_fields_set and getattr(self, name) is None]:
            raise ValueError(f"a project cannot be without {', '.join(gone)}")
        return self

    def applied(self, settings: ProjectSettings) -> ProjectSettings:
        plain = self.model_fields_set - {"limits", "quotas", "verification", "dependencies", "archived"}
        changes: dict[str, Any] = self.model_dump(include=plain)
        if "limits" in self.model_fields_set:
            changes["limits"] = _asked(self.limits)
        if "quotas" in self.model_fields_set:
            changes |= self.quotas.model_dump()
        if "verification" in self.model_fields_set:
            changes["verification"] = self.verification and self.verification.value()
        if "dependencies" in self.model_fields_set:
            changes["dependencies"] = self.dependencies and self.dependencies.value()
        return settings.model_copy(update=changes)


class GitCredentialBody(Strict):
    """What the project's repository is opened with. It is shown to the repository's host and to nobody else, ever."""

    username: str = Field(
        default="x-access-token",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x39\x3b-\x7e]+$",
        description="Many hosts take any name with a token.",
    )
    token: SecretStr = Field(
        min_length=1,
        max_length=4_096,
        description="A password or an access token, of visible ASCII characters.",
        json_schema_extra={"pattern": r"^[\x21-\x7e]+$"},
    )

    @model_validator(mode="after")
    def _plain(self) -> Self:
        text = self.token.get_secret_value()
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise ValueError("the token has characters other than visible ASCII")
        return self


class GitCredentialModel(BaseModel):
    """All that is told of a git credential."""

    username: str
    set_at: datetime


class ProjectModel(BaseModel):
    """A project. `version` is its ETag; `limits` holds those that it says."""

    id: str
    name: str
    repository: str
    default_ref: str
    agent: str | None
    model: str | None
    limits: dict[str, Any]
    image: str
    quotas: QuotasBody
    verification: Verification | None
    dependencies: Dependencies | None
    git_credential: GitCredentialModel | None
    version: int
    archived: bool
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None

    @classmethod
    def of(cls, project: Project) -> Self:
        apart = {"limits", "verification", "dependencies"}
        settings, credential = project.settings.model_dump(exclude=apart), project.credential
        quotas = {name: settings.pop(name) for name in QuotasBody.model_fields}
        known = None if credential is None else GitCredentialModel(**{
            name: getattr(credential, name) for name in GitCredentialModel.model_fields
        })  # fmt: skip
        return cls(
            **settings,
            limits=project.settings.limits.model_dump(mode="json", exclude_none=True),
            quotas=QuotasBody(**quotas),
            verification=project.settings.verification,
            dependencies=project.settings.dependencies,
            git_credential=known,
            archived=project.archived_at is not None,
            **{name: getattr(project, name) for name in ("id", "version", "created_at", "updated_at", "archived_at")},
        )


class ProjectPage(BaseModel):
    """Projects, newest first. `next_cursor` continues the list; None at its end."""

    items: list[ProjectModel]
    next_cursor: str | None


class ProjectStatsModel(BaseModel):
    """What a project's runs came to so far. Durations are of ended runs, from submission to end."""

    runs: dict[str, int] = Field(description="Number of runs by status.")
    input_tokens: int
    output_tokens: int
    cost_usd: str
    duration_p50_seconds: float | None
    duration_p95_seconds: float | None
    last_run_at: datetime | None

    @classmethod
    def of(cls, found: RunStatistics) -> Self:
        return cls(
            runs=found.by_status,
            cost_usd=str(found.cost_usd),
            **{
                name: getattr(found, name)
                for name in (
                    "input_tokens",
                    "output_tokens",
                    "duration_p50_seconds",
                    "duration_p95_seconds",
                    "last_run_at",
                )
            },
        )
