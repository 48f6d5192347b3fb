"""One run at a time, what is kept of it is held against what its events make, at the same place in the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import EventLog, cursor_of
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.ids import run_stream
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.comparison import Difference, Sample, compare
from codeagent.projections.projection import Projection, Sums
from codeagent.projections.rebuild import place_of
from codeagent.projections.shadow import shadowed

MOST_EVENTS = 20_000
"""A run with more is not looked at, so that a look stays short."""
_ANY_RUN = """
SELECT run_id FROM public.runs TABLESAMPLE SYSTEM (
    (SELECT least(100, 100 * 200 / greatest(reltuples, 1)) FROM pg_class WHERE oid = 'public.runs'::regclass))
ORDER BY random() LIMIT 1"""
"""Of a few hundred that lie together somewhere: sorting all of them would take too long."""
_WRONG_SUMS = """
WITH made AS ({made}), found AS ({found})
SELECT (SELECT count(*) FROM (SELECT * FROM made EXCEPT SELECT * FROM found) m),
       (SELECT count(*) FROM (SELECT * FROM found EXCEPT SELECT * FROM made) s)"""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found: where a projection of the run differs, nowhere as a rule."""

    run_id: str
    wrong: Sequence[tuple[str, Difference]]


async def look_at_any(database: Database) -> Look | None:
    """Looks at a run that chance picks; None where there is none, or only a very long one. Raises `Unavailable`."""
    # One snapshot: rows, places and events are as of one moment.
    async with (
        shadowed(database, PROJECTIONS.values()) as session,
        session.transaction(isolation="repeatable_read"),
    ):
        run_id = await session.fetchval(_ANY_RUN)
        return None if run_id is None else await _look(session, database, run_id)


async def _look(session: Connection, database: Database, run_id: str) -> Look | None:
    log = EventLog(database)
    story = await log.read_run(run_stream(run_id), session, MOST_EVENTS + 1)
    if len(story) > MOST_EVENTS:
        return None
    wrong: list[tuple[str, Difference]] = []
    for name, kind in PROJECTIONS.items():
        wrong += [(name, each) for each in await _differences(session, kind, kind(database, log), run_id, story)]
    return Look(run_id, wrong)


async def _differences(
    session: Connection, kind: type[Projection], projection: Projection, run_id: str, story: Sequence[StoredEvent]
) -> list[Difference]:
    place = await place_of(session, kind)
    taken = [event for event in story if place is not None and cursor_of(event) <= place]
    if not taken:
        return []
    await projection.take(session, taken)
    sample = Sample(run_id, [event.id for event in taken])
    found = [await compare(session, kept, sample) for kept in kind.KEEPS if kept.sample is not None]
    found += [await _wrong_sums(session, kept.table, kept.sums, run_id) for kept in kind.KEEPS if kept.sums is not None]
    return [each for each in found if each]


async def _wrong_sums(session: Connection, table: str, sums: Sums, run_id: str) -> Difference:
    row = await session.fetchrow(_WRONG_SUMS.format(made=sums.made, found=sums.found), run_id)
    assert row is not None  # it counts
    return Difference(table, row[0], row[1])
