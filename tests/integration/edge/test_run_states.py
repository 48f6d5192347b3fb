"""A run as it was: at any of its versions, between two of them, and played again on a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from typer.testing import CliRunner, Result

from codeagent import clock
from codeagent.cli.main import app
from codeagent.cli.playback import LONGEST_PAUSE_SECONDS, Pace
from codeagent.eventlog.database import Database
from codeagent.messages import events
from tests.integration.edge.gateway import MINE, OTHERS, Edge
from tests.integration.projections.logs import Happened, new_run_id, submitted, write


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=2)
    yield opened
    await opened.close()


async def a_run(owner: Database, tenant_id: str = MINE, *, ended: bool = True) -> str:
    """Begun a second after it was submitted, and completed an hour later."""
    run_id = new_run_id()
    story: list[tuple[float, events.Event]] = [
        (0, submitted(run_id, "usr_owner", "test/a")),
        (1, events.RunStarted(run_id=run_id)),
        (1, events.StepStarted(step=0, name="prepare", effect_id=clock.new_uuid())),
    ]
    if ended:
        story.append((3_600, events.RunCompleted(run_id=run_id, status_reason="done", message="Repaired.")))
    await write(owner, [Happened(run_id, event, tenant_id=tenant_id, seconds=at) for at, event in story])
    return run_id


async def test_a_run_is_shown_as_it_was_at_each_version(edge: Edge, owner: Database) -> None:
    run_id = await a_run(owner)
    states = [
        (await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/state?at={version}")) for version in (1, 2, 3, 4)
    ]
    assert [state.json()["status"] for state in states] == ["submitted", "working", "working", "completed"]
    assert [state.json()["version"] for state in states] == [1, 2, 3, 4]
    assert [state.headers["etag"] for state in states] == ['"1"', '"2"', '"3"', '"4"']
    now = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}")
    assert states[-1].json() == now.json()
    assert states[0].json()["message"] == ""


async def test_a_version_that_is_not_there_is_refused(edge: Edge, owner: Database) -> None:
    run_id = await a_run(owner)
    later = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/state?at=5")
    assert (later.status_code, later.json()["code"]) == (400, "cursor_past_head")
    for at in ("0", "-1", "x", "9" * 30, ""):
        refused = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/state?at={at}")
        assert refused.status_code == 422, at
    newest = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/state")
    assert newest.json()["version"] == 4


async def test_what_was_is_the_tenants_own(edge: Edge, owner: Database) -> None:
    theirs = await a_run(owner, OTHERS)
    for path in ("state?at=1", "changes"):
        answer = await edge.call(edge.keys.owner, "GET", f"/v1/runs/{theirs}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


async def test_two_versions_are_compared_field_by_field(edge: Edge, owner: Database) -> None:
    run_id = await a_run(owner)
    told = (await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/changes?since=2&until=4")).json()
    assert (told["since"], told["until"]) == (2, 4)
    changes = {change["field"]: (change["before"], change["after"]) for change in told["changes"]}
    assert changes["status"] == ("working", "completed")
    assert changes["message"] == ("", "Repaired.")
    assert set(changes) == {"status", "status_reason", "message", "version", "updated_at"}
    assert (await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/changes?since=2")).json() == told
    backwards = (await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/changes?since=4&until=2")).json()
    assert {change["field"]: (change["after"], change["before"]) for change in backwards["changes"]} == changes
    same = (await edge.call(edge.keys.owner, "GET", f"/v1/runs/{run_id}/changes?since=3&until=3")).json()
    assert same["changes"] == []


async def replay(edge: Edge, monkeypatch: pytest.MonkeyPatch, *words: object) -> Result:
    monkeypatch.setenv("CODEAGENT_URL", str(edge.http.base_url))
    monkeypatch.setenv("CODEAGENT_API_KEY", edge.keys.owner)
    return await asyncio.to_thread(CliRunner().invoke, app, ["replay", *(str(word) for word in words)])


async def test_a_run_is_played_again(edge: Edge, owner: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await a_run(owner)
    done = await replay(edge, monkeypatch, run_id, "--speed", 0)
    assert done.exit_code == 0, done.output
    assert done.stdout.index("preparing the files") < done.stdout.index("Repaired.")
    assert done.stdout.splitlines()[-1] == "after 4 events: completed, 0 steps, 0 USD"
    cut = await replay(edge, monkeypatch, run_id, "--speed", 0, "--until", 2)
    assert "preparing the files" not in cut.stdout
    assert cut.stdout.splitlines()[-1] == "after 2 events: working, 0 steps, 0 USD"
    lines = (await replay(edge, monkeypatch, run_id, "--speed", 0, "--json")).stdout.splitlines()
    assert [json.loads(line)["sequence"].lstrip("0") for line in lines] == ["1", "2", "3", "4"]


async def test_a_run_at_work_is_played_as_far_as_one_says(
    edge: Edge, owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await a_run(owner, ended=False)
    refused = await replay(edge, monkeypatch, run_id)
    assert (refused.exit_code, "run_not_ended" in refused.stderr) == (2, True)
    assert (await replay(edge, monkeypatch, run_id, "--until", 3, "--speed", 0)).exit_code == 0
    assert (await replay(edge, monkeypatch, run_id, "--until", 9)).exit_code == 2


@pytest.mark.parametrize(
    "words", [("--live",), ("--agent", "reader@1", "--until", 3), ("--agent", "reader@1", "--speed", 2)]
)
async def test_what_does_not_go_together_is_refused(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...]
) -> None:
    done = await replay(edge, monkeypatch, new_run_id(), *words)
    assert (done.exit_code, "--agent" in done.stderr) == (2, True)


def test_the_pace_is_that_of_the_run_but_for_long_pauses() -> None:
    assert Pace(speed=2.0).pause(1.5) == 0.75
    assert Pace(speed=0).pause(1.5) == 0.0
    assert Pace().pause(-0.1) == 0.0  # clocks of two workers
    assert Pace().pause(timedelta(hours=1).total_seconds()) == LONGEST_PAUSE_SECONDS
