"""Bodies of requests and answers about sessions."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from codeagent.edge.model_names import FallbacksBody
from codeagent.edge.models import (
    ApprovalsBody,
    ArchiveSourceBody,
    GitSourceBody,
    LimitsBody,
    ProjectId,
    RunBody,
    Strict,
    VerificationBody,
)
from codeagent.edge.usage_models import RunCounts, UsageFigures
from codeagent.messages.values import RunStatus
from codeagent.projections.session_statistics import SessionStatistics
from codeagent.projects.sessions import Session

Title = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["Rounding in the cart"])]


class SessionBody(Strict):
    """A session to make."""

    project_id: ProjectId | None = Field(default=None, description="The project whose its runs will be.")
    title: Title = ""

    def fingerprint(self) -> str:
        return sha256(self.model_dump_json().encode()).hexdigest()


class SessionPatch(Strict):
    title: Title


class MessageBody(Strict):
    """What is to be done next. What it leaves out is as in the session's run before, or as the project says."""

    content: str = Field(min_length=1, max_length=32_000, examples=["Now add a test for it."])
    source: Annotated[ArchiveSourceBody | GitSourceBody, Field(discriminator="kind")] | None = Field(
        default=None, description="For the session's first run, where its project is to give none."
    )
    agent: str | None = Field(default=None, min_length=1, max_length=100)
    model: str | None = Field(default=None, min_length=1, max_length=200, examples=["builtin/repair"])
    limits: LimitsBody = LimitsBody()
    approvals: ApprovalsBody | None = Field(
        default=None, description="What people are asked about, besides what the agent demands."
    )
    verification: VerificationBody | None = Field(default=None, description="What judges the patch.")
    fallbacks: FallbacksBody | None = None

    def run(self, session_id: str) -> RunBody:
        """The run that it stands for."""
        said: dict[str, Any] = self.model_dump(exclude_none=True)
        return RunBody.model_validate({"task": said.pop("content"), **said, "session_id": session_id})


class SessionStatsModel(BaseModel):
    """What a session's runs came to so far, those included that other runs have started. Follows the log with a short
    delay."""

    runs: RunCounts
    calls: int = Field(description="Model calls, failed ones included.")
    unpriced_calls: int = Field(description="Those among them whose price is not known: they are missing in the cost.")
    input_tokens: int
    output_tokens: int
    cost_usd: str
    last_run_id: str | None = Field(description="The run that was submitted last, and that no other run has started.")
    last_run_status: RunStatus | None
    last_active_at: datetime | None = Field(description="When something last happened in one of its runs.")

    @classmethod
    def of(cls, found: SessionStatistics) -> Self:
        figures = UsageFigures.values(found.used)
        counted = ("runs", "calls", "unpriced_calls", "input_tokens", "output_tokens", "cost_usd")
        last = ("last_run_id", "last_run_status", "last_active_at")
        return cls(**{name: figures[name] for name in counted}, **{name: getattr(found, name) for name in last})


class SessionModel(BaseModel):
    """A conversation: runs that follow each other on the same files. `version` is its ETag, and not that of `stats`."""

    id: str
    project_id: str | None
    title: str
    version: int
    closed: bool
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    stats: SessionStatsModel

    @classmethod
    def of(cls, session: Session, stats: SessionStatistics) -> Self:
        names = ("id", "project_id", "title", "version", "created_at", "updated_at", "closed_at")
        told = {name: getattr(session, name) for name in names}
        return cls(closed=session.closed_at is not None, stats=SessionStatsModel.of(stats), **told)


class SessionPage(BaseModel):
    """Sessions, newest first. `next_cursor` continues the list; None at its end."""

    items: list[SessionModel]
    next_cursor: str | None
