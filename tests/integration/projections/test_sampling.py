"""A look at a run, now and then, finds what is kept of it and is not what the log says."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.sampling import look_at_any
from codeagent.projections.usage import UsageProjector
from codeagent.relay.projection_checks import ProjectionChecks
from codeagent.telemetry.metrics import REGISTRY
from tests.integration.projections.logs import caught_up, new_run_id, write
from tests.integration.projections.test_rebuild import CHANGES, kept, story

__all__ = ["kept"]
UNSEEN = [
    change for table, change, *_ in CHANGES if table == "artifact_references" or change.startswith("DELETE FROM runs")
]
"""A digest too many may be another run's, and a run that is not kept is not picked: the whole check finds them."""


async def wrong_tables(database: Database) -> set[str]:
    found = await look_at_any(database)
    assert found is not None
    return {difference.table for _, difference in found.wrong}


async def test_a_run_that_is_kept_as_the_log_says_is_no_cause_for_alarm(kept: Database) -> None:
    for _ in range(5):
        assert await wrong_tables(kept) == set()


async def test_where_there_is_no_run_nothing_is_looked_at(database: Database) -> None:
    assert await look_at_any(database) is None


@pytest.mark.parametrize(
    ("table", "change"),
    [(table, change) for table, change, *_ in CHANGES if change not in UNSEEN],
)
async def test_a_row_that_is_wrong_is_found(kept: Database, table: str, change: str) -> None:
    await kept.write(change)
    assert table in await wrong_tables(kept)


async def test_a_projection_that_is_behind_is_not_wrong(kept: Database) -> None:
    await write(kept, story(new_run_id()))
    for kind in PROJECTIONS.values():
        if kind is not UsageProjector:
            await caught_up(kept, kind(kept, EventLog(kept)))
    for _ in range(10):
        assert await wrong_tables(kept) == set()


async def test_the_alarm_names_the_projection_and_the_run(kept: Database) -> None:
    await kept.write("UPDATE agent_runs SET steps = steps + 1")
    count = {"projection": "agent_runs"}
    before = REGISTRY.get_sample_value("codeagent_projection_mismatches_total", count) or 0
    with capture_logs() as logs:
        await ProjectionChecks(kept).look()
    assert REGISTRY.get_sample_value("codeagent_projection_mismatches_total", count) == before + 1
    [line] = [line for line in logs if line["event"] == "projection.mismatch"]
    assert (line["projection"], line["table"]) == ("agent_runs", "agent_runs")
    assert line["run_id"].startswith("run_")
