"""`/v1/events`: the tenant's feed as pages and as Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from codeagent.eventlog.database import Database
from codeagent.messages.events import RunCompleted
from tests.integration.edge.served import ServedEdge
from tests.integration.edge.test_stream import live
from tests.integration.eventlog.steps import commit_step, new_run, started, step

STREAM = {"Accept": "text/event-stream"}


async def frames(answer: httpx2.Response) -> AsyncIterator[tuple[str, str | None, dict[str, Any]]]:
    """Server-Sent Events as (name, id, data)."""
    found: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line == "" and "data" in found:
            yield found["event"], found.get("id"), json.loads(found["data"])
            found = {}
        elif line:
            found[name] = value


async def two_runs(database: Database) -> tuple[str, str]:
    first, second = new_run(), new_run()
    await commit_step(database, step(first, 0, [started(), started()]))
    await commit_step(database, step(second, 0, [started(), RunCompleted()]))
    return first, second


async def test_pages_follow_each_other_to_the_end(served: ServedEdge, writer: Database) -> None:
    path = f"/v1/events?limit=3&after={await served.now()}"
    first, second = await two_runs(writer)
    seen = []
    async with served.http() as http:
        while path:
            answer = await http.get(path)
            page = answer.json()
            seen += [(event["partitionkey"], int(event["sequence"])) for event in page["items"]]
            path = answer.links.get("next", {}).get("url", "")
        assert seen == [(first, 1), (first, 2), (second, 1), (second, 2)]
        await commit_step(writer, step(first, 2, [RunCompleted()]))
        later = (await http.get("/v1/events", params={"after": page["cursor"]})).json()
    assert [(event["partitionkey"], int(event["sequence"])) for event in later["items"]] == [(first, 3)]


async def test_filters_leave_the_rest_out(served: ServedEdge, writer: Database) -> None:
    before = await served.now()
    first, second = await two_runs(writer)
    async with served.http() as http:
        ended = (await http.get("/v1/events", params={"types": "run.completed,run.failed", "after": before})).json()
        of_first = (await http.get("/v1/events", params={"run_id": first})).json()
    assert [event["partitionkey"] for event in ended["items"]] == [second]
    assert [event["partitionkey"] for event in of_first["items"]] == [first, first]


async def test_a_stream_begins_with_history_goes_on_live_and_resumes(served: ServedEdge, writer: Database) -> None:
    before = await served.now()
    first, second = await two_runs(writer)
    async with served.http() as http:
        async with http.stream("GET", "/v1/events", params={"after": before}, headers=STREAM) as answer:
            seen, last = [], None
            async for name, position, data in frames(answer):
                if position is not None:
                    seen.append((name, data["partitionkey"], int(data["sequence"])))
                    last = position
                if len(seen) == 4:
                    break
        assert seen[-1] == ("run.completed", second, 2)
        made = step(first, 2, [started(), RunCompleted()])
        async with http.stream("GET", "/v1/events", headers={**STREAM, "Last-Event-ID": last or ""}) as answer:
            found = frames(answer)
            assert (await anext(found))[0] == "stream.open"
            await commit_step(writer, made)
            served.hub.receive(live(made, 1))
            assert [(await anext(found))[0] for _ in range(2)] == ["run.started", "run.completed"]


async def test_latest_begins_with_what_is_yet_to_come(served: ServedEdge, writer: Database) -> None:
    first, _ = await two_runs(writer)
    async with served.http() as http:
        page = (await http.get("/v1/events", params={"after": "latest"})).json()
        assert page["items"] == []
        await commit_step(writer, step(first, 2, [RunCompleted()]))
        page = (await http.get("/v1/events", params={"after": page["cursor"]})).json()
    assert [event["sequence"] for event in page["items"]] == [f"{3:020d}"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("after=x", 400, "malformed_cursor"),
        ("after=1-2-3", 400, "malformed_cursor"),
        ("after=-1-1", 400, "malformed_cursor"),
        ("after=1-ffffffffffffffff", 400, "malformed_cursor"),
        ("after=ffffffffffffffff-7fffffffffffffff", 400, "cursor_past_head"),
        ("types=run.started,run.exploded", 422, "unsupported_event_type"),
        ("run_id=run_x", 404, "not_found"),
        ("limit=0", 422, "validation_failed"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_what_is_asked_for_wrongly_is_refused(
    served: ServedEdge, query: str, status: int, code: str, accept: str
) -> None:
    async with served.http() as http:
        answer = await http.get(f"/v1/events?{query}", headers={"Accept": accept})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_another_tenants_run_is_not_found_and_its_events_are_not_shown(
    served: ServedEdge, writer: Database
) -> None:
    first, _ = await two_runs(writer)
    async with served.http("theirs") as http:
        assert (await http.get("/v1/events")).json()["items"] == []
        assert (await http.get("/v1/events", params={"run_id": first})).status_code == 404


async def test_the_scope_of_a_reader_is_needed(served: ServedEdge) -> None:
    async with served.http("narrow") as http:
        assert (await http.get("/v1/events")).json()["code"] == "insufficient_scope"
    async with served.http(None) as http:
        assert (await http.get("/v1/events")).status_code == 401
