"""What the runs of each session have brought: a row a run and a row a session, kept from the log by cursor.

Calls and commands do not say whose session they are of, so that a run's row has to. A page is folded onto the rows as
they were, which commit with the place in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from codeagent.eventlog.database import Connection, Row
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.unreadable import readable
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.messages.values import RunStatus
from codeagent.projections.projection import Kept, Projection, Sums
from codeagent.projections.tally import COUNTED, COUNTERS, Tally, tallies_of
from codeagent.projections.view import status_after

_FOLDED = COUNTED | {event.NAME for event in (events.RunStarted, events.InputRequired, events.RunResumed)}


@dataclass(slots=True)
class SessionRun:
    """One row of `session_runs`; columns have the same names, and those of `used` its own."""

    run_id: str
    session_id: str
    tenant_id: str
    status: str
    last_active_at: datetime
    used: Tally = field(default_factory=Tally)


@dataclass(slots=True)
class SessionTotals:
    """One row of `session_totals`. The last run is the one that was submitted last, none that another run has started;
    both count. `last_active_at` is the latest time of an event that was folded."""

    tenant_id: str
    session_id: str
    last_run_id: str | None
    last_run_status: str | None
    last_active_at: datetime
    used: Tally = field(default_factory=Tally)

    def take(self, run: SessionRun, event: Event, at: datetime) -> None:
        """One more event of a run of the session, or of a call or command of it."""
        if isinstance(event, events.RunSubmitted) and event.parent is None:
            self.last_run_id = run.run_id
        run.status = status_after(event) or run.status
        if self.last_run_id == run.run_id:
            self.last_run_status = run.status
        for _, used in tallies_of(event, "") if event.NAME in COUNTED else ():
            run.used.add(used)
            self.used.add(used)
        run.last_active_at = max(run.last_active_at, at)
        self.last_active_at = max(self.last_active_at, at)


_OF_RUN, _OF_SESSION = (
    tuple(column.name for column in fields(row) if column.name != "used") for row in (SessionRun, SessionTotals)
)
_RUN_KEY, _SESSION_KEY = ("run_id",), ("tenant_id", "session_id")


def _upsert(table: str, own: Sequence[str], key: Sequence[str]) -> str:
    columns = (*own, *COUNTERS)
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) "  # noqa: S608  constants
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )


_RUNS = "SELECT * FROM session_runs WHERE run_id = ANY ($1)"
_SESSIONS = """SELECT * FROM session_totals
    WHERE (tenant_id, session_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"""
_UPSERT_RUN = _upsert("session_runs", _OF_RUN, _RUN_KEY)
_UPSERT_SESSION = _upsert("session_totals", _OF_SESSION, _SESSION_KEY)
_WHOSE = "(tenant_id, session_id) IN (SELECT tenant_id, session_id FROM public.session_runs WHERE run_id = $1)"
_SUMS = Sums(
    f"""SELECT tenant_id, session_id, max(last_active_at), {", ".join(f"sum({name})" for name in COUNTERS)}
        FROM public.session_runs WHERE {_WHOSE} GROUP BY tenant_id, session_id""",  # noqa: S608  constants
    f"""SELECT tenant_id, session_id, last_active_at, {", ".join(COUNTERS)}
        FROM public.session_totals WHERE {_WHOSE}""",  # noqa: S608  constants
)


class SessionsProjector(Projection):
    """Keeps `session_runs` and `session_totals`."""

    NAME = "sessions"
    LOCK = 0x73657373
    KEEPS = (
        Kept("session_runs", _RUN_KEY),
        Kept("session_totals", _SESSION_KEY, sample=None, sums=_SUMS),
    )

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        read = [(stored, event) for stored in page if (event := _read(stored)) is not None]
        if not read:
            return
        begun = {stored.id: run for stored, event in read if (run := _begun(stored, event)) is not None}
        runs = await _known_runs(connection, {stored.metadata["runid"] for stored, _ in read})
        sessions = await _known_sessions(connection, [*runs.values(), *begun.values()])
        for stored, event in read:
            run_id, at = stored.metadata["runid"], stored.occurred_at
            run = begun.get(stored.id) or runs.get(run_id)
            if run is None:
                continue
            runs[run_id], key = run, (run.tenant_id, run.session_id)
            sessions.setdefault(key, SessionTotals(*key, None, None, at)).take(run, event, at)
        await connection.executemany(_UPSERT_RUN, [_values(run, _OF_RUN) for run in runs.values()])
        await connection.executemany(_UPSERT_SESSION, [_values(each, _OF_SESSION) for each in sessions.values()])


def _begun(stored: StoredEvent, event: Event) -> SessionRun | None:
    """The run that begins with it, if it is one of a session."""
    if not isinstance(event, events.RunSubmitted) or event.session_id is None:
        return None
    status, at = RunStatus.SUBMITTED.value, stored.occurred_at
    return SessionRun(stored.metadata["runid"], event.session_id, stored.tenant_id, status, at)


async def _known_runs(connection: Connection, run_ids: set[str]) -> dict[str, SessionRun]:
    """A run of no session has no row, and neither has one whose submission the log cannot show."""
    rows = await connection.fetch(_RUNS, sorted(run_ids))
    return {row["run_id"]: SessionRun(**_said(row, _OF_RUN)) for row in rows}


async def _known_sessions(connection: Connection, runs: Sequence[SessionRun]) -> dict[tuple[str, str], SessionTotals]:
    keys = {(run.tenant_id, run.session_id) for run in runs}
    rows = await connection.fetch(_SESSIONS, [tenant for tenant, _ in keys], [session for _, session in keys])
    return {(row["tenant_id"], row["session_id"]): SessionTotals(**_said(row, _OF_SESSION)) for row in rows}


def _said(row: Row, own: Sequence[str]) -> dict[str, Any]:
    return {"used": Tally(*(row[name] for name in COUNTERS)), **{name: row[name] for name in own}}


def _values(row: SessionRun | SessionTotals, own: Sequence[str]) -> tuple[object, ...]:
    return (*(getattr(row, name) for name in own), *row.used.values())


def _read(stored: StoredEvent) -> Event | None:
    """The event, if it changes something and can be read."""
    event = readable(stored, SessionsProjector.NAME) if stored.type in _FOLDED else None
    return event if "runid" in stored.metadata else None
