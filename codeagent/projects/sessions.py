"""Sessions as rows, each written together with its facts, and which runs they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from codeagent import clock
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Conflict, NotFound
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Author, ControlPlane, check_repeat
from codeagent.messages.commands import MOST_FOLLOWED
from codeagent.messages.envelope import Event
from codeagent.messages.ids import parse_typed_id, session_stream
from codeagent.messages.project_events import SessionClosed, SessionCreated, SessionRenamed
from codeagent.subjects.texts import open_texts, seal_text

PREFIX = "ses"
NONE_SUCH = "There is no such session."


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation as its tenant sees it. `version` is that of its stream."""

    id: str
    version: int
    project_id: str | None
    title: str
    created_by: str
    fingerprint: str
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None


_COLUMNS = ", ".join(field.name for field in fields(Session))


@dataclass(frozen=True, slots=True)
class SessionOrder:
    """A session to make. `id` is derived from the request, so that a repeat makes none."""

    id: str
    project_id: str | None
    title: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SessionRuns:
    """The runs of a session as they were accepted: the first, and some of the newest, newest first."""

    first: str | None
    newest: Sequence[str]


class Sessions:
    """`database` works under the edge's role. Every method sees the sessions of the named tenant, or the author's."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = ControlPlane(database)

    async def create(self, author: Author, order: SessionOrder) -> tuple[Session, bool]:
        """The session, and whether an earlier request has made it. Raises `InvalidInput` for an id that stands for
        another request. The project exists."""
        subjects = self._database.subjects
        title = await seal_text(subjects, author.tenant_id, author.id, order.title, title_place(order.id))
        try:
            async with self._control.change(author) as change:
                row = await change.row(
                    f"""INSERT INTO sessions (id, tenant_id, version, project_id, title, created_by, fingerprint)
                        VALUES ($1, $2, 1, $3, $4, $5, $6) RETURNING {_COLUMNS}""",  # noqa: S608  constants
                    order.id,
                    author.tenant_id,
                    order.project_id,
                    title,
                    author.id,
                    order.fingerprint,
                )
                created = SessionCreated(session_id=order.id, project_id=order.project_id)
                await change.record(session_stream(order.id), 1, created)
        except Conflict:
            session = await self.find(author.tenant_id, order.id)
            check_repeat(session.fingerprint, order.fingerprint)
            return session, True
        return (await self._opened([row]))[0], False

    async def find(self, tenant_id: str, session_id: str) -> Session:
        """Raises `NotFound`, also for another tenant's session."""
        if parse_typed_id(PREFIX, session_id) is None:
            raise NotFound(NONE_SUCH)
        rows = await self._database.fetch(
            f"SELECT {_COLUMNS} FROM sessions WHERE id = $1",  # noqa: S608  constants
            session_id,
            tenant=tenant_id,
        )
        if not rows:
            raise NotFound(NONE_SUCH)
        return (await self._opened(rows))[0]

    async def page(
        self, tenant_id: str, *, project_id: str | None, after: str | None, limit: int
    ) -> tuple[Sequence[Session], str | None]:
        """Sessions, newest first, and the next page's cursor. Raises `Rejected` for a cursor that is none."""
        created_at, session_id = parse_time_cursor(PREFIX, after)
        rows = await self._database.fetch(
            f"""SELECT {_COLUMNS} FROM sessions
                WHERE tenant_id = $1 AND ($2::text IS NULL OR project_id = $2)
                  AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
                ORDER BY created_at DESC, id DESC LIMIT $5""",  # noqa: S608  constants
            tenant_id,
            project_id,
            created_at,
            session_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = await self._opened(rows)
        return page_of(found, limit, lambda session: format_time_cursor(session.created_at, session.id))

    async def rename(self, author: Author, session: Session, title: str) -> Session:
        """Raises `VersionMismatch` where the session has changed since it was read."""
        place, subjects = title_place(session.id), self._database.subjects
        sealed = await seal_text(subjects, author.tenant_id, session.created_by, title, place)
        return await self._change(author, session, "title = $3", sealed, SessionRenamed(session_id=session.id))

    async def close(self, author: Author, session: Session) -> Session:
        """It takes no more runs. Raises `VersionMismatch` where the session has changed since it was read."""
        closed = SessionClosed(session_id=session.id)
        return await self._change(author, session, "closed_at = coalesce(closed_at, $3)", clock.now(), closed)

    async def _change(self, author: Author, session: Session, change_to: str, value: object, fact: Event) -> Session:
        async with self._control.change(author) as change:
            row = await change.row(
                f"""UPDATE sessions SET {change_to}, updated_at = clock_timestamp(), version = version + 1
                    WHERE id = $1 AND version = $2 RETURNING {_COLUMNS}""",  # noqa: S608  constants
                session.id,
                session.version,
                value,
            )
            await change.record(session_stream(session.id), row["version"], fact)
            return (await self._opened([row]))[0]

    async def _opened(self, rows: Sequence[Row]) -> list[Session]:
        titles = {title_place(row["id"]): row["title"] for row in rows}
        opened = await open_texts(self._database.subjects, titles)
        return [Session(**{**dict(row), "title": opened[title_place(row["id"])]}) for row in rows]

    async def runs(self, tenant_id: str, session_id: str) -> SessionRuns:
        """In the order in which they were accepted, those included whose commands got lost."""
        rows = await self._database.fetch(
            """SELECT array(SELECT run_id FROM placements WHERE session_id = $1 ORDER BY placed_at DESC LIMIT $2)
                          AS newest,
                      (SELECT run_id FROM placements WHERE session_id = $1 ORDER BY placed_at LIMIT 1) AS first""",
            session_id,
            MOST_FOLLOWED,
            tenant=tenant_id,
        )
        return SessionRuns(rows[0]["first"], rows[0]["newest"])


def title_place(session_id: str) -> str:
    return f"sessions/{session_id}/title"
