"""Folds of runs in the database: what one edge has folded no other folds again, and none of them is believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from codeagent import clock
from codeagent.edge.snapshots import TableSnapshots
from codeagent.edge.views import RunViews
from codeagent.errors import NotFound
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.snapshots import forget_old
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.envelope import Event
from tests.integration.edge.test_run_views import LONG, OTHER, CountedLog
from tests.integration.eventlog.steps import TENANT, cause, commit_step, new_run, prepared, started, step, submitted

OWNER = "usr_of_the_run"


@dataclass
class Edges:
    """Edges on one database. `run` writes a long run as a worker does, sealed for its owner."""

    walled: Database
    writer: Database
    made: list[TableSnapshots] = field(default_factory=list)

    def edge(self) -> tuple[CountedLog, RunViews, TableSnapshots]:
        log, kept = CountedLog(self.walled), TableSnapshots(self.walled)
        self.made.append(kept)
        return log, RunViews(log, SubmissionLedger(self.walled), kept), kept

    async def run(self) -> str:
        run_id = new_run()
        first = submitted(run_id).model_copy(update={"task": "canary task", "principal": OWNER})
        facts: list[Event] = [first, *(started() for _ in range(LONG - 1))]
        key = await self.writer.subjects.of(TENANT, OWNER)
        made = step(run_id, 0, tenant=TENANT)
        await commit_step(self.writer, replace(made, events=prepared(run_id, 0, facts, cause(run_id), key)))
        return run_id

    async def kept_run(self) -> str:
        """A run that some edge has folded and kept."""
        run_id, (_, views, kept) = await self.run(), self.edge()
        await views.get(TENANT, run_id)
        await asyncio.gather(*kept._writes)
        return run_id


@pytest.fixture
async def edges(newest_database_url: str) -> AsyncIterator[Edges]:
    made = Edges(Database(newest_database_url, role=EDGE_ROLE), Database(newest_database_url))
    yield made
    for kept in made.made:
        await kept.stop()
    await made.walled.close()
    await made.writer.close()


async def test_what_one_edge_has_folded_another_does_not_fold_again(edges: Edges) -> None:
    run_id = await edges.kept_run()
    log, views, _ = edges.edge()
    view = await views.get(TENANT, run_id)
    assert (view.task, view.version, log.events) == ("canary task", LONG, 1)


async def test_it_is_sealed_and_another_tenant_finds_nothing(edges: Edges) -> None:
    run_id = await edges.kept_run()
    [row] = await edges.writer.fetch("SELECT value FROM snapshots")
    assert b"canary" not in row["value"]
    _, views, kept = edges.edge()
    assert await kept.get(OTHER, run_id) is None
    with pytest.raises(NotFound):
        await views.get(OTHER, run_id)


@pytest.mark.parametrize(
    "change",
    [
        "value = '\\x00'",
        "value = set_byte(value, 100, (get_byte(value, 100) + 1) % 256)",
        "value = (SELECT value FROM snapshots WHERE run_id <> $1)",
        "folded_by = 'another release'",
    ],
)
async def test_what_is_not_as_it_was_kept_costs_a_fold_and_nothing_else(edges: Edges, change: str) -> None:
    run_id, _ = await edges.kept_run(), await edges.kept_run()
    await edges.writer.write(f"UPDATE snapshots SET {change} WHERE run_id = $1", run_id)
    log, views, _ = edges.edge()
    assert (await views.get(TENANT, run_id)).task == "canary task"
    assert log.events == LONG


async def test_one_that_is_ahead_of_the_log_is_not_believed(edges: Edges) -> None:
    run_id = await edges.kept_run()
    _, _, kept = edges.edge()
    snapshot = await kept.get(TENANT, run_id)
    assert snapshot is not None
    kept.keep(replace(snapshot, view=replace(snapshot.view, version=LONG + 50)))
    await asyncio.gather(*kept._writes)
    log, views, _ = edges.edge()
    assert (await views.get(TENANT, run_id)).version == LONG
    assert log.events >= LONG


async def test_nothing_is_kept_of_somebody_who_is_being_erased(edges: Edges) -> None:
    run_id = await edges.run()
    await edges.writer.subjects.close_for_good(TENANT, OWNER, clock.now())
    await asyncio.sleep(0.06)
    _, views, kept = edges.edge()
    await views.get(TENANT, run_id)
    await asyncio.gather(*kept._writes)
    assert await edges.writer.fetch("SELECT 1 FROM snapshots") == []


async def test_old_ones_are_forgotten(edges: Edges) -> None:
    await edges.kept_run()
    assert await forget_old(edges.writer, 10) == 0
    await edges.writer.write("UPDATE snapshots SET folded_at = folded_at - $1::interval", timedelta(days=31))
    assert await forget_old(edges.writer, 10) == 1
