"""What happens to projects and sessions: the streams `project-<id>` and `session-<id>`, written with their rows."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from codeagent.messages.conversation import Data
from codeagent.messages.envelope import Event
from codeagent.messages.personal import OfTenant
from codeagent.messages.values import Dependencies, LimitsAsked, absent
from codeagent.messages.verification import Verification


class ProjectSettings(Data):
    """A repository and what its runs use where they do not say. None says nothing; a quota of None is no quota."""

    name: str
    repository: str
    default_ref: str = "HEAD"
    agent: str | None = None
    model: str | None = None
    limits: LimitsAsked = LimitsAsked()
    image: str = "default"
    verification: Verification | None = Field(default=None, exclude_if=absent)
    max_concurrent_runs: int | None = None
    max_runs_per_day: int | None = None
    dependencies: Dependencies | None = Field(default=None, exclude_if=absent)


class ProjectCreated(Event):
    NAME: ClassVar[str] = "project.created"

    project_id: str
    settings: Annotated[ProjectSettings, OfTenant("what runs of a project have in common", "what the user wrote")]


class ProjectUpdated(Event):
    """`settings` are all of them, as they are now."""

    NAME: ClassVar[str] = "project.updated"

    project_id: str
    settings: Annotated[ProjectSettings, OfTenant("what runs of a project have in common", "what the user wrote")]


class ProjectArchived(Event):
    NAME: ClassVar[str] = "project.archived"

    project_id: str


class ProjectUnarchived(Event):
    NAME: ClassVar[str] = "project.unarchived"

    project_id: str


class GitCredentialSet(Event):
    """Never the token, nor its user."""

    NAME: ClassVar[str] = "project.git_credential.set"

    project_id: str


class GitCredentialRemoved(Event):
    NAME: ClassVar[str] = "project.git_credential.removed"

    project_id: str


class SessionCreated(Event):
    """Its title stands in its row alone."""

    NAME: ClassVar[str] = "session.created"

    session_id: str
    project_id: str | None = None


class SessionRenamed(Event):
    NAME: ClassVar[str] = "session.renamed"

    session_id: str


class SessionClosed(Event):
    NAME: ClassVar[str] = "session.closed"

    session_id: str
