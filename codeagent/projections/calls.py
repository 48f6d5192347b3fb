"""The model calls of a run, as the log tells of them: no table of their own, so that none of them is late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import COLUMNS
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.messages.calls import CallEnded, ModelSwitched
from codeagent.messages.events import StepStarted
from codeagent.messages.ids import call_stream, run_stream

_STEPS = f"""SELECT {COLUMNS} FROM events
    WHERE stream_id = $1 AND stream_version > $2 AND event_type = $3 ORDER BY stream_version LIMIT $4"""  # noqa: S608  constants
_CALLS = f"SELECT {COLUMNS} FROM events WHERE stream_id = ANY ($1) ORDER BY stream_id, stream_version"  # noqa: S608  constants


@dataclass(slots=True)
class RunCall:
    """One model call. `place` is the version of the event that asked for it, in the run's stream; `ended` is None
    while it is at work."""

    place: int
    effect_id: UUID
    step: int
    started_at: datetime
    switches: tuple[tuple[datetime, ModelSwitched], ...] = ()
    ended: tuple[datetime, CallEnded] | None = None

    def take(self, stored: StoredEvent) -> None:
        """One more event of the call's own stream."""
        match event := stored.decode():
            case ModelSwitched():
                self.switches = (*self.switches, (stored.occurred_at, event))
            case CallEnded():
                self.ended = (stored.occurred_at, event)
            case _:
                pass


async def calls_of_run(database: Database, tenant_id: str, run_id: str, *, after: int, limit: int) -> Sequence[RunCall]:
    """At most `limit` calls in their order, from those that were asked for beyond the version `after` of the run's
    stream. `database` is the edge's."""
    found: list[RunCall] = []
    while len(found) < limit:
        rows = await database.fetch(_STEPS, run_stream(run_id), after, StepStarted.NAME, limit, tenant=tenant_id)
        steps = await open_events(database.subjects, [from_row(row) for row in rows])
        found += [call for step in steps if (call := _asked_for(step)) is not None]
        if len(rows) < limit:
            break
        after = rows[-1]["stream_version"]
    page = found[:limit]
    by_stream = {call_stream(call.effect_id): call for call in page}
    rows = await database.fetch(_CALLS, list(by_stream), tenant=tenant_id)
    for stored in await open_events(database.subjects, [from_row(row) for row in rows]):
        by_stream[stored.stream_id].take(stored)
    return page


def _asked_for(stored: StoredEvent) -> RunCall | None:
    step = stored.decode()
    if not isinstance(step, StepStarted) or step.name != "think":
        return None
    return RunCall(stored.version, step.effect_id, step.step, stored.occurred_at)
