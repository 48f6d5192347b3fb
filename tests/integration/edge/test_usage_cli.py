"""What has been used, on the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import typer
from typer.testing import CliRunner

from codeagent import clock
from codeagent.cli.usage import show_usage
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages import events
from codeagent.projections.usage import UsageProjector
from tests.integration.edge.gateway import MINE, Edge
from tests.integration.projections.logs import Happened, call, new_run_id, submitted, write
from tests.integration.quotas.test_reservations import of_today

USED = "1  2.50  1  3.0  3.0  0.000833"
NOTHING = "0  0  0  0.0  0.0  0.0"


@pytest.fixture
async def run_id(newest_database_url: str) -> AsyncIterator[str]:
    """A run of today with a call and a command, counted."""
    owner, run_id = Database(newest_database_url, connections=2), new_run_id()
    command = of_today(run_id, clock.new_uuid(), 3.0)
    happened = [submitted(run_id, "usr_owner", "test/m"), call(run_id, "test/m", cost="2.50"), command.event]
    log = [Happened(run_id, event, command.day, MINE) for event in (*happened, events.RunCompleted())]
    await write(owner, log)
    projector = UsageProjector(owner, EventLog(owner))
    async with asyncio.timeout(20):
        while not await owner.fetch("SELECT FROM usage_runs WHERE NOT open"):
            if not await projector.catch_up():
                await asyncio.sleep(0.005)
    yield run_id
    await owner.close()


@pytest.fixture
def lines(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setenv("CODEAGENT_URL", str(edge.http.base_url))
    monkeypatch.setenv("CODEAGENT_API_KEY", edge.keys.owner)
    app = typer.Typer()
    app.command()(show_usage)

    def shown(*words: str) -> list[str]:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    return shown


async def test_usage_is_shown_by_what_was_asked_and_in_all(lines: Callable[..., list[str]], run_id: str) -> None:
    today = clock.now().date().isoformat()
    for words, key, name in (
        ((), "day", today),
        (("--by", "model", "--from", today, "--to", today), "model", "test/m"),
        (("--by", "principal"), "principal_id", "usr_owner"),
        (("--by", "project"), "project_id", "-"),
        (("--run", run_id), "model", "test/m"),
    ):
        assert await asyncio.to_thread(lines, *words) == [
            f"{key}  calls  cost_usd  commands  sandbox_seconds  cpu_seconds  gib_hours",
            f"{name}  {USED}",
            f"total  {USED}",
        ]


async def test_days_without_any_use_have_a_total_of_nothing(lines: Callable[..., list[str]], run_id: str) -> None:
    shown = await asyncio.to_thread(lines, "--from", "2020-01-01", "--to", "2020-01-02")
    assert shown[1:] == [f"total  {NOTHING}"]
