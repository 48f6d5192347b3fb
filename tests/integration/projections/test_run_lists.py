"""The list of runs: what each filter finds, page by page, and that it reads no more than that."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.values import Replays
from codeagent.projections.runs import RunFilter, RunsProjector, list_runs, listing
from tests.integration.projections.logs import TENANT, Happened, new_run_id, submitted, write_at_once

BEGAN = datetime(2026, 11, 23, tzinfo=UTC)
RUNS = 2_000
LATE = BEGAN + timedelta(minutes=RUNS - 20)
"""A moment after which twenty runs changed. The others change as they begin."""

# Every hundredth run is a rare one in all ways at once; every second rare one is of the agent's third version.
_FILL = """
INSERT INTO runs (run_id, tenant_id, version, status, agent, agent_version, project_id, session_id, created_at,
                  updated_at)
SELECT 'run_' || lpad(n::text, 26, '0'), $1, 1, CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END,
       CASE WHEN n % 100 = 0 THEN 'reviewer' ELSE 'coder' END, CASE WHEN n % 200 = 0 THEN 3 ELSE 1 END,
       CASE WHEN n % 100 = 0 THEN 'prj_1' ELSE 'prj_' || n END, CASE WHEN n % 100 = 0 THEN 'ses_1' END,
       $2::timestamptz + n * interval '1 minute', $2::timestamptz + n * interval '1 minute'
FROM generate_series(1, $3) AS n"""


@pytest.fixture
async def filled(database: Database) -> Database:
    await database.write(_FILL, TENANT, BEGAN, RUNS)
    await database.write("ANALYZE runs")
    return database


def numbers(step: int, after: int = 0) -> list[int]:
    """Of runs, newest first."""
    return [number for number in range(RUNS, after, -1) if number % step == 0]


FILTERS = [
    (RunFilter(), "runs_newest", numbers(1)),
    (RunFilter(status="failed"), "runs_by_status", numbers(100)),
    (RunFilter(project_id="prj_1"), "runs_of_project", [*numbers(100), 1]),
    (RunFilter(session_id="ses_1"), "runs_of_session", numbers(100)),
    (RunFilter(agent="reviewer"), "runs_by_agent", numbers(100)),
    (RunFilter(agent="reviewer@3"), "runs_by_agent", numbers(200)),
    (RunFilter(updated_after=LATE), "runs_by_update", numbers(1, RUNS - 20)),
]
"""Each with the index that serves it, and the runs that it finds."""


async def test_a_list_tells_which_run_one_goes_on_with(database: Database) -> None:
    before, after = new_run_id(), new_run_id()
    orders = [
        submitted(before, "usr_a", "test/model"),
        submitted(after, "usr_a", "test/model", replays=Replays(run_id=before, until_version=3)),
    ]
    await write_at_once(database, [Happened(order.run_id, order) for order in orders])
    projector = RunsProjector(database, EventLog(database))
    while await projector.catch_up():
        pass
    rows, _ = await list_runs(database, TENANT, RunFilter(), after=None, limit=10)
    assert {row.run_id: row.replays_run_id for row in rows} == {before: None, after: before}


async def test_a_filter_finds_its_runs_in_pages(filled: Database) -> None:
    everything = RunFilter("failed", "prj_1", "ses_1", "reviewer@3", LATE)
    for wanted, expected in [*((wanted, expected) for wanted, _, expected in FILTERS), (everything, [RUNS])]:
        found: list[int] = []
        cursor, size = None, len(expected) // 3 + 1
        for _ in range(0, len(expected), size):
            page, cursor = await list_runs(filled, TENANT, wanted, after=cursor, limit=size)
            found += [int(run.run_id.removeprefix("run_")) for run in page]
        assert (found, cursor) == (expected, None), wanted
        assert await list_runs(filled, "ten_other", wanted, after=None, limit=10) == ([], None)


async def test_a_filter_has_an_index_on_the_first_page_and_on_later_ones(filled: Database) -> None:
    for wanted, index, expected in FILTERS:
        _, cursor = await list_runs(filled, TENANT, wanted, after=None, limit=len(expected) // 2)
        for after in (None, cursor):
            query, values = listing(TENANT, wanted, after=after, limit=5)
            [[plan]] = await filled.fetch(f"EXPLAIN (FORMAT JSON) {query}", *values)
            assert index in indexes(json.loads(plan)), plan


def indexes(plan: Any) -> set[str]:
    """All that a plan names."""
    if isinstance(plan, dict):
        return {plan["Index Name"]} if "Index Name" in plan else set().union(*map(indexes, plan.values()))
    return set().union(*map(indexes, plan)) if isinstance(plan, list) else set()
