"""The list of runs: a table kept from the log by cursor, its place in the log committed with its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.errors import Unreadable
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import COLUMNS, EventLog
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.eventlog.unreadable import name_unreadable, readable
from codeagent.messages.events import RunSubmitted
from codeagent.messages.ids import run_stream
from codeagent.projections.projection import Kept, Projection
from codeagent.projections.view import RunView

TASK_CHARACTERS = 500

_UPSERT = """
INSERT INTO runs (run_id, tenant_id, version, status, status_reason, agent, agent_version, model, steps,
                  input_tokens, output_tokens, cost_usd, created_at, updated_at, project_id, session_id, parent_run_id,
                  replays_run_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT (run_id) DO UPDATE SET version = excluded.version, status = excluded.status,
    status_reason = excluded.status_reason, agent = excluded.agent,
    agent_version = excluded.agent_version, model = excluded.model, steps = excluded.steps,
    input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd,
    updated_at = excluded.updated_at, project_id = excluded.project_id, session_id = excluded.session_id,
    parent_run_id = excluded.parent_run_id, replays_run_id = excluded.replays_run_id
WHERE runs.version < excluded.version"""

# A cancel may have come before it.
_SUBMITTED = f"""SELECT {COLUMNS} FROM events
    WHERE stream_id = ANY ($1) AND stream_version <= 2 AND event_type = 'run.submitted'"""  # noqa: S608  constants


class RunsProjector(Projection):
    """Keeps the `runs` table."""

    NAME = "runs"
    LOCK = 0x72756E73
    KEEPS = (Kept("runs", ("run_id",)),)

    def __init__(self, database: Database, log_reader: EventLog, *, idle_seconds: float = 0.25) -> None:
        super().__init__(database, log_reader, idle_seconds=idle_seconds)
        self._views: dict[str, RunView] = {}

    def interrupted(self) -> None:
        self._views.clear()

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        changed = await self._folded([event for event in page if event.stream_id.startswith("run-")])
        await connection.executemany(_UPSERT, [_row(view) for view in changed])
        for view in changed:
            if view.status.terminal:
                self._views.pop(view.run_id, None)

    async def _folded(self, events: Sequence[StoredEvent]) -> list[RunView]:
        changed: dict[str, RunView] = {}
        for event in events:
            run_id = event.stream_id.removeprefix("run-")
            view = self._views.get(run_id) or await self._reread(run_id, event)
            if event.version == view.version + 1:
                _take(view, event)
            self._views[run_id] = changed[run_id] = view
        return list(changed.values())

    async def _reread(self, run_id: str, event: StoredEvent) -> RunView:
        view = RunView(run_id, event.tenant_id)
        if event.version > 1:
            async for earlier in self._log.stream(event.stream_id):
                if earlier.version >= event.version:
                    break  # rows are as of the place in the log, and not ahead of it
                _take(view, earlier)
        return view


def _take(view: RunView, event: StoredEvent) -> None:
    """One event that cannot be read must not hold up all runs: it is named, and left out of the view."""
    try:
        view.apply(event)
    except Unreadable as error:
        name_unreadable(event, RunsProjector.NAME, error)
        view.version = event.version


def _row(view: RunView) -> tuple[object, ...]:
    return (
        view.run_id,
        view.tenant_id,
        view.version,
        view.status.value,
        view.status_reason,
        view.agent,
        view.agent_version,
        view.model,
        view.steps,
        view.usage.input_tokens,
        view.usage.output_tokens,
        view.cost_usd,
        view.created_at,
        view.updated_at,
        view.project_id,
        view.session_id,
        view.parent_run_id,
        None if view.replays is None else view.replays.run_id,
    )


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in a list. `task` is an excerpt, empty where it was erased."""

    run_id: str
    version: int
    status: str
    status_reason: str
    task: str
    agent: str
    agent_version: int
    model: str
    steps: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    created_at: datetime
    updated_at: datetime
    project_id: str | None
    session_id: str | None
    parent_run_id: str | None
    replays_run_id: str | None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of a tenant; None is any. `agent` is `name`, for all of its versions, or `name@number`."""

    status: str | None = None
    project_id: str | None = None
    session_id: str | None = None
    agent: str | None = None
    updated_after: datetime | None = None
    parent: str | None = None


async def list_runs(
    database: Database, tenant_id: str, wanted: RunFilter, *, after: str | None, limit: int
) -> tuple[Sequence[RunRow], str | None]:
    """A tenant's runs, newest first, and the cursor of the next page. Raises `Rejected` for a malformed cursor."""
    query, values = listing(tenant_id, wanted, after=after, limit=limit + 1)
    rows = await database.fetch(query, *values, tenant=tenant_id)
    tasks = await _tasks(database, tenant_id, [row["run_id"] for row in rows])
    found = [RunRow(task=tasks.get(row["run_id"], ""), **dict(row)) for row in rows]
    return page_of(found, limit, lambda run: format_time_cursor(run.created_at, run.run_id))


async def _tasks(database: Database, tenant_id: str, run_ids: Sequence[str]) -> dict[str, str]:
    """Excerpts of the tasks of runs, from the log: no table of ours holds a copy of what a person wrote."""
    rows = await database.fetch(_SUBMITTED, [run_stream(run_id) for run_id in run_ids], tenant=tenant_id)
    tasks: dict[str, str] = {}
    for stored in await open_events(database.subjects, [from_row(row) for row in rows]):
        event = readable(stored, RunsProjector.NAME)
        if isinstance(event, RunSubmitted):
            tasks[event.run_id] = event.task[:TASK_CHARACTERS]
    return tasks


def listing(tenant_id: str, wanted: RunFilter, *, after: str | None, limit: int) -> tuple[str, list[object]]:
    """The query of a page and its values. It says what is asked and nothing else, so that each filter finds its index:
    a condition that may be off is one for which the planner has to be ready. Raises `Rejected` for a malformed
    cursor."""
    values: list[object] = [tenant_id, limit]
    conditions = ["tenant_id = $1"]
    for column, value in _asked(wanted):
        values.append(value)
        conditions.append(f"{column} ${len(values)}")
    if after:
        values += parse_time_cursor("run", after)
        conditions.append(f"(created_at, run_id) < (${len(values) - 1}, ${len(values)})")
    query = f"""
        SELECT run_id, version, status, status_reason, agent, agent_version, model, steps, input_tokens,
               output_tokens, cost_usd, created_at, updated_at, project_id, session_id, parent_run_id,
               replays_run_id
        FROM runs WHERE {" AND ".join(conditions)} ORDER BY created_at DESC, run_id DESC LIMIT $2"""  # noqa: S608  constants
    return query, values


def _asked(wanted: RunFilter) -> Iterator[tuple[str, object]]:
    """The beginning of each condition, and the value that it compares with."""
    name, _, number = (wanted.agent or "").partition("@")
    known: tuple[tuple[str, object], ...] = (
        ("status =", wanted.status),
        ("project_id =", wanted.project_id),
        ("session_id =", wanted.session_id),
        ("parent_run_id =", wanted.parent),
        ("agent =", name or None),
        ("agent_version =", int(number) if number else None),
        ("updated_at >", wanted.updated_after),
    )
    return ((condition, value) for condition, value in known if value is not None)
