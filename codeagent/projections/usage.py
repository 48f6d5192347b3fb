"""What runs have used: by run and by day, kept from the log by cursor.

The tables only ever add. Each event is added once, since the place in the log commits with the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date
from decimal import Decimal
from uuid import UUID

from codeagent.eventlog.database import Connection
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.unreadable import readable
from codeagent.messages import events
from codeagent.messages.calls import CallEnded
from codeagent.messages.envelope import Event
from codeagent.projections.projection import Kept, Projection, Sums
from codeagent.projections.tally import COUNTED, COUNTERS, Tally, tallies_of


@dataclass(slots=True)
class UsedBy:
    """Whose a run's use is. A run whose submission the log does not have, or cannot show, is nobody's."""

    tenant_id: str
    principal_id: str = ""
    project_id: str | None = None
    session_id: str | None = None
    model: str = ""
    max_cost_usd: Decimal | None = None


def _upsert(table: str, key: tuple[str, ...], more: tuple[str, ...] = ()) -> str:
    columns = (*key, *more, *COUNTERS)
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in COUNTERS)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) "  # noqa: S608  constants
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sums}"
    )


_BY_RUN = _upsert("usage_by_run", ("run_id", "day", "model"), ("tenant_id",))
_BY_DAY = _upsert("usage_by_day", ("tenant_id", "day", "model", "project_id", "principal_id"))
_NEW_RUN = """INSERT INTO usage_runs (run_id, tenant_id, principal_id, project_id, session_id, model, max_cost_usd,
                                        cost_usd, open)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 0, true) ON CONFLICT (run_id) DO NOTHING"""
_SETTLED = (
    "DELETE FROM sandbox_reservations WHERE effect_id = ANY ($1)",
    "DELETE FROM call_reservations WHERE effect_id = ANY ($1)",
)
_SPENT = "UPDATE usage_runs SET cost_usd = cost_usd + $2, open = open AND NOT $3 WHERE run_id = $1"


@dataclass(slots=True)
class _Page:
    """What one page of the log adds."""

    submitted: dict[str, UsedBy] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    settled: list[UUID] = field(default_factory=list)
    """Commands and model calls, which count from now on and reserve nothing any more."""
    by_run: dict[tuple[str, date, str, str], Tally] = field(default_factory=dict)
    by_day: dict[tuple[str, date, str, str | None, str], Tally] = field(default_factory=dict)

    def add(self, run_id: str, owner: UsedBy, day: date, event: Event) -> None:
        for model, tally in tallies_of(event, owner.model):
            self.by_run.setdefault((run_id, day, model, owner.tenant_id), Tally()).add(tally)
            key = owner.tenant_id, day, model, owner.project_id, owner.principal_id
            self.by_day.setdefault(key, Tally()).add(tally)
        if isinstance(event, events.RunEnded):
            self.ended.add(run_id)
        elif isinstance(event, events.ExecEnded | CallEnded):
            self.settled.append(event.effect_id)

    def costs(self) -> dict[str, Decimal]:
        """What each run of the page has spent in it."""
        found: dict[str, Decimal] = {}
        for (run_id, *_), tally in self.by_run.items():
            found[run_id] = found.get(run_id, Decimal(0)) + tally.cost_usd
        return found


_SUMS = ", ".join(f"sum({name})" for name in COUNTERS)
_OF_RUNS, _OF_DAYS = (
    f"""SELECT day, model, {_SUMS} FROM public.{table} WHERE (tenant_id, day) IN
            (SELECT tenant_id, day FROM public.usage_by_run WHERE run_id = $1) GROUP BY day, model"""  # noqa: S608  constants
    for table in ("usage_by_run", "usage_by_day")
)


class UsageProjector(Projection):
    """Keeps `usage_runs`, `usage_by_run` and `usage_by_day`."""

    NAME = "usage"
    LOCK = 0x7573616765
    KEEPS = (
        Kept("usage_runs", ("run_id",)),
        Kept("usage_by_run", ("run_id", "day", "model")),
        Kept(
            "usage_by_day",
            ("tenant_id", "day", "model", "project_id", "principal_id"),
            sample=None,
            sums=Sums(_OF_RUNS, _OF_DAYS),
        ),
    )
    BESIDE = ("sandbox_reservations", "call_reservations")

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        counted = [(stored, event) for stored in page if (event := _read(stored)) is not None]
        if not counted:
            return
        owners = await self._known(connection, {stored.metadata["runid"] for stored, _ in counted})
        added = _Page()
        for stored, event in counted:
            run_id = stored.metadata["runid"]
            if isinstance(event, events.RunSubmitted):
                owners[run_id] = added.submitted[run_id] = _owner(stored, event)
            owner = owners.get(run_id) or UsedBy(stored.tenant_id)
            added.add(run_id, owner, stored.occurred_at.astimezone(UTC).date(), event)
        await self._write(connection, added)

    async def _known(self, connection: Connection, run_ids: set[str]) -> dict[str, UsedBy]:
        rows = await connection.fetch(
            "SELECT run_id, tenant_id, principal_id, project_id, session_id, model, max_cost_usd FROM usage_runs "
            "WHERE run_id = ANY ($1)",
            sorted(run_ids),
        )
        return {row["run_id"]: UsedBy(*(value for name, value in row.items() if name != "run_id")) for row in rows}

    async def _write(self, connection: Connection, added: _Page) -> None:
        await connection.executemany(
            _NEW_RUN,
            [
                (run_id, of.tenant_id, of.principal_id, of.project_id, of.session_id, of.model, of.max_cost_usd)
                for run_id, of in added.submitted.items()
            ],
        )
        spent = [(run_id, cost, run_id in added.ended) for run_id, cost in added.costs().items()]
        await connection.executemany(_SPENT, [row for row in spent if row[1] or row[2]])
        for settled in _SETTLED if added.settled else ():
            await connection.execute(settled, added.settled)
        await connection.executemany(_BY_RUN, [(*key, *tally.values()) for key, tally in added.by_run.items()])
        await connection.executemany(_BY_DAY, [(*key, *tally.values()) for key, tally in added.by_day.items()])


def _read(stored: StoredEvent) -> Event | None:
    """The event, if it adds something and can be read."""
    event = readable(stored, UsageProjector.NAME) if stored.type in COUNTED else None
    return event if "runid" in stored.metadata else None


def _owner(stored: StoredEvent, event: events.RunSubmitted) -> UsedBy:
    # What a child may spend is a part of what its parent may, which is reserved already.
    most = event.limits.max_cost_usd if event.parent is None else None
    return UsedBy(stored.tenant_id, event.principal, event.project_id, event.session_id, event.model, most)
