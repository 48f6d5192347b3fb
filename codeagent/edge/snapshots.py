"""Folded runs in the database, for edges that have no Valkey to share them in.

As little is believed of them as of those in Valkey: `RunViews` takes one only where the log has its last event, and
reads on from there. They are sealed with the key of whoever the run belongs to.
"""

from __future__ import annotations

import asyncio

from pydantic import TypeAdapter

from codeagent.edge.folding import MOST_BYTES, folded_by
from codeagent.edge.views import Snapshot
from codeagent.errors import CodeAgentError
from codeagent.eventlog import snapshots
from codeagent.eventlog.database import Database
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

MOST_WRITES = 4
_SNAPSHOT = TypeAdapter(Snapshot)


class TableSnapshots:
    """`database` works under the edge's role. What fails costs a fold from the beginning, and nothing else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes: set[asyncio.Task[None]] = set()

    async def get(self, tenant_id: str, run_id: str) -> Snapshot | None:
        try:
            value = await snapshots.find(self._database, tenant_id, run_id, folded_by())
            return None if value is None else _SNAPSHOT.validate_json(value)
        except (CodeAgentError, ValueError):
            log.warning("views.not_accepted", run_id=run_id)
            return None

    def keep(self, snapshot: Snapshot) -> None:
        if len(self._writes) >= MOST_WRITES:
            return
        value, view = _SNAPSHOT.dump_json(snapshot), snapshot.view
        if len(value) <= MOST_BYTES:
            place = snapshots.Place(view.tenant_id, view.run_id, view.version, folded_by(), view.key_id)
            writing = asyncio.create_task(self._write(place, value))
            self._writes.add(writing)
            writing.add_done_callback(self._writes.discard)

    async def _write(self, place: snapshots.Place, value: bytes) -> None:
        try:
            await snapshots.keep(self._database, place, value)
        except CodeAgentError as error:
            log.warning("views.not_shared", error=type(error).__name__)

    async def stop(self) -> None:
        for writing in self._writes:
            writing.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)
