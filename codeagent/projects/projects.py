"""Projects as rows, each written together with its facts: made, listed, changed, archived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, ControlPlane, check_repeat
from codeagent.messages.envelope import Event
from codeagent.messages.ids import parse_typed_id, project_stream
from codeagent.messages.project_events import (
    GitCredentialRemoved,
    ProjectArchived,
    ProjectCreated,
    ProjectSettings,
    ProjectUnarchived,
    ProjectUpdated,
)

PREFIX = "prj"
NONE_SUCH = "There is no such project."
_SETTINGS = tuple(ProjectSettings.model_fields)
_DOCUMENTS = frozenset({"limits", "verification", "dependencies"})
_SELECT = """SELECT p.*, c.username AS credential_username, c.set_at AS credential_set_at
    FROM projects p LEFT JOIN git_credentials c ON c.project_id = p.id"""


@dataclass(frozen=True, slots=True)
class CredentialFacts:
    """What may be told of a git credential."""

    username: str
    set_at: datetime


@dataclass(frozen=True, slots=True)
class Project:
    """A project as its tenant sees it. `version` is that of its stream, `fingerprint` that of the request for it."""

    id: str
    version: int
    settings: ProjectSettings
    credential: CredentialFacts | None
    created_by: str
    fingerprint: str
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None


@dataclass(frozen=True, slots=True)
class ProjectOrder:
    """A project to make. `id` is derived from the request, so that a repeat makes none."""

    id: str
    settings: ProjectSettings
    fingerprint: str


class Projects:
    """`database` works under the edge's role. Every method sees the projects of the named tenant, or the author's."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)

    async def create(self, author: Author, order: ProjectOrder) -> tuple[Project, bool]:
        """The project, and whether an earlier request has made it. Raises `Conflict` for a name that is taken,
        `InvalidInput` for an id that stands for another request."""
        try:
            async with self._control.change(author) as change:
                await change.row(
                    """INSERT INTO projects (id, tenant_id, version, name, repository, default_ref, agent, model,
                           limits, image, verification, max_concurrent_runs, max_runs_per_day, dependencies,
                           created_by, fingerprint)
                       VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) RETURNING id""",
                    order.id,
                    author.tenant_id,
                    *_columns(order.settings),
                    author.id,
                    order.fingerprint,
                )
                created = ProjectCreated(project_id=order.id, settings=order.settings)
                await change.record(project_stream(order.id), 1, created)
        except Conflict:
            if (project := await self.made_before(author.tenant_id, order.id, order.fingerprint)) is not None:
                return project, True
            raise _name_taken(order.settings) from None
        return await self.find(author.tenant_id, order.id), False

    async def made_before(self, tenant_id: str, project_id: str, fingerprint: str) -> Project | None:
        """What an earlier request has made under this id. Raises `InvalidInput` where that was for something else."""
        try:
            project = await self.find(tenant_id, project_id)
        except NotFound:
            return None
        check_repeat(project.fingerprint, fingerprint)
        return project

    async def find(self, tenant_id: str, project_id: str) -> Project:
        """Raises `NotFound`, also for another tenant's project."""
        if parse_typed_id(PREFIX, project_id) is None:
            raise NotFound(NONE_SUCH)
        rows = await self._database.fetch(f"{_SELECT} WHERE p.id = $1", project_id, tenant=tenant_id)
        if not rows:
            raise NotFound(NONE_SUCH)
        return _from_row(rows[0])

    async def page(
        self, tenant_id: str, *, archived: bool, after: str | None, limit: int
    ) -> tuple[Sequence[Project], str | None]:
        """Projects, newest first, and the next page's cursor. Raises `Rejected` for a cursor that is none."""
        created_at, project_id = parse_time_cursor(PREFIX, after)
        rows = await self._database.fetch(
            f"""{_SELECT}
                WHERE p.tenant_id = $1 AND (p.archived_at IS NOT NULL) = $2
                  AND ($3::timestamptz IS NULL OR (p.created_at, p.id) < ($3, $4))
                ORDER BY p.created_at DESC, p.id DESC LIMIT $5""",
            tenant_id,
            archived,
            created_at,
            project_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = [_from_row(row) for row in rows]
        return page_of(found, limit, lambda project: format_time_cursor(project.created_at, project.id))

    async def change(self, author: Author, project: Project, settings: ProjectSettings, *, archived: bool) -> Project:
        """The project as it is then. With another repository its git credential goes: it was given for the former one.

        Raises `VersionMismatch` where the project has changed since it was read, `Conflict` for a name that is taken.
        """
        facts = _changes(project, settings, archived=archived)
        if not facts:
            return project
        try:
            async with self._control.change(author) as change:
                row = await change.row(
                    """UPDATE projects SET name = $3, repository = $4, default_ref = $5, agent = $6, model = $7,
                           limits = $8, image = $9, verification = $10, max_concurrent_runs = $11,
                           max_runs_per_day = $12, dependencies = $13,
                           archived_at = CASE WHEN $14 THEN coalesce(archived_at, clock_timestamp()) END,
                           updated_at = clock_timestamp(), version = version + $15
                       WHERE id = $1 AND version = $2 RETURNING version""",
                    project.id,
                    project.version,
                    *_columns(settings),
                    archived,
                    len(facts),
                )
                if any(isinstance(fact, GitCredentialRemoved) for fact in facts):
                    await change.rows("DELETE FROM git_credentials WHERE project_id = $1", project.id)
                for version, fact in enumerate(facts, row["version"] - len(facts) + 1):
                    await change.record(project_stream(project.id), version, fact)
        except Conflict:
            raise _name_taken(settings) from None
        return await self.find(author.tenant_id, project.id)


def _changes(project: Project, settings: ProjectSettings, *, archived: bool) -> list[Event]:
    facts: list[Event] = []
    if settings != project.settings:
        facts.append(ProjectUpdated(project_id=project.id, settings=settings))
    if settings.repository != project.settings.repository and project.credential is not None:
        facts.append(GitCredentialRemoved(project_id=project.id))
    if archived != (project.archived_at is not None):
        facts.append((ProjectArchived if archived else ProjectUnarchived)(project_id=project.id))
    return facts


def _name_taken(settings: ProjectSettings) -> Conflict:
    return Conflict(f"There is another project of the name {settings.name!r}.")


def _columns(settings: ProjectSettings) -> tuple[object, ...]:
    values = settings.model_dump(mode="json")
    return tuple(_column(name, values.get(name)) for name in _SETTINGS)


def _column(name: str, value: object) -> object:
    return orjson.dumps(value).decode() if name in _DOCUMENTS and value is not None else value


def _from_row(row: Row) -> Project:
    values = {name: orjson.loads(row[name]) if name in _DOCUMENTS and row[name] else row[name] for name in _SETTINGS}
    set_at = row["credential_set_at"]
    return Project(
        settings=ProjectSettings(**values),
        credential=None if set_at is None else CredentialFacts(row["credential_username"], set_at),
        **{
            name: row[name]
            for name in ("id", "version", "created_by", "fingerprint", "created_at", "updated_at", "archived_at")
        },
    )
