"""How versions of an agent do, over HTTP and on the terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.projections.agent_runs import AgentRunsProjector
from tests.integration.edge.defined_agents import define, refused
from tests.integration.edge.gateway import MINE, OTHERS, Edge
from tests.integration.edge.test_agents_cli import Command, command
from tests.integration.projections.logs import DAY, Happened, call, caught_up, new_run_id, submitted, write

__all__ = ["command"]
WINDOW = f"since={DAY}&until={DAY}"


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=4)
    yield opened
    await opened.close()


def ended(version: int, end: Event, seconds: float, tenant: str = MINE) -> list[Happened]:
    run_id = new_run_id()
    order = submitted(run_id, "usr_owner", "test/model", agent="reader", agent_version=version)
    story = ((0.0, order), (1.0, call(run_id, cost="0.25")), (seconds, end))
    return [Happened(run_id, event, DAY, tenant, at) for at, event in story]


async def test_the_figures_of_each_version_are_shown_to_its_tenant_alone(edge: Edge, owner: Database) -> None:
    agent = await define(edge, "reader", {}, {}, {})
    failed = events.RunFailed(status_reason="max_turns_exceeded")
    log = [*ended(1, events.RunCompleted(), 10), *ended(2, events.RunCompleted(), 20), *ended(2, failed, 30)]
    await write(owner, [*log, *ended(2, failed, 99, OTHERS)])
    await caught_up(owner, AgentRunsProjector(owner, EventLog(owner)))
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/agents/reader/stats?{WINDOW}")
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert (page["agent_id"], page["since"], page["until"]) == (agent["id"], str(DAY), str(DAY))
    second, first = page["items"]
    assert second["runs"] == {"submitted": 2, "open": 0, "succeeded": 1, "failed": 1, "canceled": 0, "excused": 0}
    assert (second["success_rate"], second["cost_usd"], second["cost_usd_p95"]) == (0.5, "0.50", "0.25")
    assert (second["duration_p50_seconds"], second["duration_p95_seconds"]) == (20.0, 30.0)
    assert (first["version"], first["success_rate"]) == (1, 1.0)
    by_page = await edge.call(edge.keys.owner, "GET", f"/v1/agents/reader/stats?{WINDOW}&limit=1")
    assert [found["version"] for found in by_page.json()["items"]] == [2]
    rest = await edge.call(edge.keys.owner, "GET", by_page.links["next"]["url"])
    assert ([found["version"] for found in rest.json()["items"]], rest.json()["next_cursor"]) == ([1], None)
    only = await edge.call(edge.keys.owner, "GET", f"/v1/agents/{agent['id']}/stats?{WINDOW}&version=1")
    assert [found["version"] for found in only.json()["items"]] == [1]
    today = await edge.call(edge.keys.owner, "GET", "/v1/agents/coder/stats?version=1")
    assert today.json()["items"] == []


async def test_what_is_not_there_or_makes_no_sense_is_refused(edge: Edge) -> None:
    await define(edge, "reader", {})
    for path, expected in (
        ("/v1/agents/nobody/stats", (404, "not_found")),
        ("/v1/agents/reader/stats?version=2", (404, "not_found")),
        ("/v1/agents/reader/stats?version=0", (422, "validation_failed")),
        ("/v1/agents/reader/stats?cursor=-1", (400, "malformed_cursor")),
        (f"/v1/agents/reader/stats?since={DAY}&until={DAY - timedelta(days=1)}", (422, "validation_failed")),
        (f"/v1/agents/reader/stats?since={DAY}&until={DAY + timedelta(days=400)}", (422, "validation_failed")),
        ("/v1/agents/reader/stats?until=0001-01-01", (422, "validation_failed")),
    ):
        assert refused(await edge.call(edge.keys.owner, "GET", path)) == expected, path
    runner = (await edge.make_key(edge.keys.owner, scopes=["runs:read"]))["key"]
    assert refused(await edge.call(runner, "GET", "/v1/agents/reader/stats")) == (403, "insufficient_scope")


async def test_the_terminal_shows_a_line_a_version(edge: Edge, owner: Database, command: Command) -> None:
    await define(edge, "reader", {})
    await write(owner, ended(1, events.RunCompleted(), 10))
    await caught_up(owner, AgentRunsProjector(owner, EventLog(owner)))
    head, line = (await command("stats", "reader", "--since", DAY, "--until", DAY)).stdout.splitlines()
    shown = dict(zip(head.split(), line.split(), strict=True))
    assert (shown["version"], shown["succeeded"], shown["success_rate"]) == ("1", "1", "1.0")
    assert (shown["cost_usd_p95"], shown["duration_p95_seconds"]) == ("0.25", "10.0")
    assert len((await command("stats", "reader", "--version", 1, "--until", "2020-01-01")).stdout.splitlines()) == 1
