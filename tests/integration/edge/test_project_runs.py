"""Runs of projects: what the project says for them, how many it may have, and what they came to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from codeagent import clock
from codeagent.broker.topics import RUN_EVENTS
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import CancelRun, SubmitRun
from codeagent.messages.envelope import Message
from codeagent.messages.ids import run_stream
from codeagent.messages.values import Dependencies
from codeagent.projections.runs import RunsProjector
from codeagent.workers.step import StepLoop
from tests.integration.edge.another_edge import beside_a_submission
from tests.integration.edge.conftest import Api
from tests.integration.workers.system import Mailbox

SHOP = {"name": "shop", "repository": "https://git.example.org/team/shop.git", "default_ref": "main"}


@pytest.fixture(params=[True], ids=["durable"])
def durable(request: pytest.FixtureRequest) -> bool:
    """Commands come out where the test can hand them on."""
    return bool(request.param)


async def project(api: Api, **fields: Any) -> str:
    body = {**SHOP, **fields}
    made = await api.http.post("/v1/projects", json=body, headers={"Idempotency-Key": f"project-{body['name']}"})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def patch(api: Api, project_id: str, **fields: Any) -> None:
    answer = await api.http.patch(f"/v1/projects/{project_id}", json=fields, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text


def command(api: Api) -> SubmitRun:
    data = api.handed_over[-1].data
    assert isinstance(data, SubmitRun)
    return data


async def end(api: Api, *run_ids: str) -> None:
    """Lets an agent worker take a cancel before the submit: the run then ends `canceled`."""
    agent = StepLoop(api.database, EventLog(api.database), Mailbox(), events_topic=RUN_EVENTS)
    for row in api.handed_over:
        if row.envelope.key in run_ids:
            envelope = replace(row.envelope, id=clock.new_uuid(), name=CancelRun.NAME)
            await agent.handle(Message(envelope, CancelRun(run_id=row.envelope.key)))
            await agent.handle(Message(row.envelope, row.data))


async def test_a_project_fills_what_the_body_leaves_out(api: Api) -> None:
    project_id = await project(api, model="test/model", limits={"max_steps": 7, "max_cost_usd": "1.50"})
    answer = await api.submit({"task": "t", "project_id": project_id, "limits": {"max_tokens": 5_000}})
    assert answer.status_code == 202, answer.text
    sent, shown = command(api), answer.json()
    assert sent.source.model_dump() == {"kind": "git", "url": SHOP["repository"], "ref": "main"}
    assert (sent.project_id, sent.model, sent.agent) == (project_id, "test/model", "coder")
    assert (sent.limits.max_steps, sent.limits.max_tokens, str(sent.limits.max_cost_usd)) == (7, 5_000, "1.50")
    assert (shown["project_id"], shown["source"]["url"]) == (project_id, SHOP["repository"])


async def test_a_run_keeps_how_its_project_had_dependencies_installed_when_it_was_submitted(api: Api) -> None:
    pip = {"install": "pip install -r requirements.txt", "lock_files": ["requirements.txt"]}
    project_id = await project(api, dependencies=pip)
    body = {"task": "t", "project_id": project_id}
    await api.submit(body, "first")
    assert command(api).dependencies == Dependencies(**pip)
    await patch(api, project_id, dependencies=None)
    assert (await api.submit(body, "first")).headers["idempotent-replayed"] == "true"
    assert command(api).dependencies == Dependencies(**pip), "a repeat has the command that it had first"
    await api.submit(body, "second")
    assert command(api).dependencies is None


async def test_the_body_wins(api: Api) -> None:
    project_id = await project(api, model="test/model", limits={"max_steps": 7})
    source = {"kind": "git", "url": "https://git.example.org/team/other.git", "ref": "v1"}
    body = {
        "task": "t",
        "project_id": project_id,
        "source": source,
        "model": "builtin/repair",
        "limits": {"max_steps": 9},
    }
    await api.submit(body)
    assert (command(api).model, command(api).limits.max_steps) == ("builtin/repair", 9)
    assert command(api).source.model_dump() == source


async def test_what_names_no_project_of_the_tenant_or_no_source_is_refused(api: Api) -> None:
    project_id = await project(api)
    for body, pointer in (
        ({"task": "t", "project_id": project_id[:-1] + "z"}, "/project_id"),
        ({"task": "t"}, "/source"),
    ):
        answer = await api.submit(body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    body = {"task": "t", "project_id": project_id}
    theirs = await api.stranger.post("/v1/runs", json=body, headers={"Idempotency-Key": "k"})
    assert (theirs.status_code, theirs.json()["code"]) == (422, "unknown_project")


async def test_a_repeat_is_the_same_run_whatever_the_project_has_become(api: Api) -> None:
    project_id = await project(api, quotas={"max_concurrent_runs": 1})
    body = {"task": "t", "project_id": project_id}
    first = await api.submit(body)
    await patch(api, project_id, archived=True, default_ref="next")
    repeat = await api.submit(body)
    assert (repeat.status_code, repeat.json()["id"]) == (202, first.json()["id"])
    assert repeat.json()["source"]["ref"] == "main"
    assert (await api.submit({**body, "task": "u"})).json()["code"] == "idempotency_key_reused"
    refused = await api.submit(body, "k2")
    assert (refused.status_code, refused.json()["code"]) == (409, "project_archived")
    # Also once the log alone remembers it.
    await end(api, first.json()["id"])
    await api.database.write("DELETE FROM submissions")
    assert (await api.submit(body)).json()["id"] == first.json()["id"]
    assert (await api.submit({**body, "task": "u"})).json()["code"] == "idempotency_key_reused"


async def test_of_many_that_race_as_many_are_taken_as_may_be_at_once(api: Api) -> None:
    project_id = await project(api, quotas={"max_concurrent_runs": 3})
    body = {"task": "t", "project_id": project_id}
    answers = await asyncio.gather(*(api.submit(body, f"k{number}") for number in range(12)))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 9
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("concurrency_limit", "5")
    taken = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    await end(api, taken[0])
    answers = await asyncio.gather(*(api.submit(body, f"l{number}") for number in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202] + [429] * 3


async def test_what_another_edge_is_about_to_accept_counts(api: Api) -> None:
    project_id = await project(api, quotas={"max_concurrent_runs": 1})
    request = api.submit({"task": "t", "project_id": project_id})
    answer = await beside_a_submission(api.database, request, tenant_id="ten_mine", project_id=project_id)
    assert (answer.status_code, answer.json()["code"]) == (429, "concurrency_limit")


async def test_a_day_has_so_many_runs_and_the_next_one_more(api: Api) -> None:
    project_id = await project(api, quotas={"max_runs_per_day": 2})
    body = {"task": "t", "project_id": project_id}
    answers = [await api.submit(body, f"k{number}") for number in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[2].json()["code"] == "quota_exceeded"
    assert 0 < int(answers[2].headers["retry-after"]) <= 86_400
    await api.database.write("UPDATE placements SET placed_at = placed_at - interval '1 day'")
    assert (await api.submit(body, "k3")).status_code == 202


async def test_quotas_are_each_projects_own_and_no_project_has_none(api: Api) -> None:
    one, other = await project(api, quotas={"max_concurrent_runs": 1}), await project(api, name="other")
    source = {"kind": "git", "url": SHOP["repository"]}
    bodies = [
        {"task": "t", "project_id": one},
        *([{"task": "t", "project_id": other}] * 2),
        *([{"task": "t", "source": source}] * 2),
    ]
    answers = [await api.submit(body, f"k{number}") for number, body in enumerate(bodies)]
    assert [answer.status_code for answer in answers] == [202] * 5
    assert len(await api.database.fetch("SELECT FROM placements")) == 3


async def test_a_run_that_the_broker_never_confirmed_gives_its_place_back(api: Api) -> None:
    project_id = await project(api, quotas={"max_concurrent_runs": 1})
    body = {"task": "t", "project_id": project_id}
    await api.submit(body)
    await api.database.write("UPDATE submissions SET accepted = false")
    assert (await api.submit(body, "k2")).status_code == 429
    await api.database.write("UPDATE submissions SET created_at = created_at - interval '61 seconds'")
    assert (await api.submit(body, "k2")).status_code == 202


async def test_runs_are_found_and_counted_by_their_project(api: Api) -> None:
    project_id = await project(api)
    body = {"task": "t", "project_id": project_id}
    mine = [(await api.submit(body, f"k{number}")).json()["id"] for number in range(3)]
    other = (await api.submit({"task": "t", "source": {"kind": "git", "url": SHOP["repository"]}}, "other")).json()[
        "id"
    ]
    await end(api, *mine[:2], other)
    projector = RunsProjector(api.database, EventLog(api.database))
    while await projector.catch_up():
        pass
    listed = (await api.http.get(f"/v1/runs?project_id={project_id}&limit=1")).json()
    rest = (await api.http.get(f"/v1/runs?project_id={project_id}&cursor={listed['next_cursor']}")).json()
    assert [item["id"] for item in (*listed["items"], *rest["items"])] == mine[1::-1]
    assert {item["project_id"] for item in rest["items"]} == {project_id}
    assert len((await api.http.get("/v1/runs")).json()["items"]) == 3
    changed = sorted(item["updated_at"] for item in (*listed["items"], *rest["items"]))
    query = urlencode({"project_id": project_id, "agent": "coder@1", "updated_after": "2026-01-01T00:00:00+01:00"})
    page = await api.http.get(f"/v1/runs?{query}&limit=1")
    following = await api.http.get(page.headers["link"].partition("<")[2].partition(">")[0])
    assert [item["id"] for item in (*page.json()["items"], *following.json()["items"])] == mine[1::-1]
    assert following.json()["next_cursor"] is None
    query = urlencode({"project_id": project_id, "updated_after": changed[0]})
    assert [item["updated_at"] for item in (await api.http.get(f"/v1/runs?{query}")).json()["items"]] == changed[1:]
    assert (await api.http.get("/v1/runs?agent=coder@2")).json()["items"] == []
    stats = (await api.http.get(f"/v1/projects/{project_id}/stats")).json()
    assert (stats["runs"], stats["cost_usd"], stats["input_tokens"]) == ({"canceled": 2}, "0", 0)
    assert 0 <= stats["duration_p50_seconds"] <= stats["duration_p95_seconds"]
    assert (
        stats["last_run_at"] == rest["items"][0]["created_at"] or stats["last_run_at"] > rest["items"][0]["created_at"]
    )
    # A table that is made again from the log knows it too.
    await api.database.write("TRUNCATE runs, projections")
    while await RunsProjector(api.database, EventLog(api.database)).catch_up():
        pass
    assert len((await api.http.get(f"/v1/runs?project_id={project_id}")).json()["items"]) == 2


@pytest.mark.parametrize(
    "asked",
    [
        "agent=Coder",
        "agent=coder@0",
        "updated_after=0.5",
        "updated_after=2026-01-01T00:00:00",
        "updated_after=0001-01-01T00:00:00%2B14:00",
    ],
)
async def test_a_filter_that_cannot_be_meant_is_refused(api: Api, asked: str) -> None:
    answer = await api.http.get(f"/v1/runs?{asked}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["pointer"] == f"query:{asked.partition('=')[0]}"


async def test_a_projects_fact_is_in_the_runs_own_stream(api: Api) -> None:
    project_id = await project(api)
    run_id = (await api.submit({"task": "t", "project_id": project_id})).json()["id"]
    await end(api, run_id)
    stored = await EventLog(api.database).read_stream(run_stream(run_id))
    [submitted] = [event.decode() for event in stored if event.type == "run.submitted"]
    assert submitted.project_id == project_id  # type: ignore[attr-defined]


async def test_an_archive_may_take_the_repositorys_place(api: Api) -> None:
    project_id = await project(api)
    digest = await api.context.store.put("ten_mine", b"an archive")
    await api.submit({"task": "t", "project_id": project_id, "source": {"kind": "archive", "digest": digest}})
    assert command(api).source.model_dump() == {"kind": "archive", "digest": digest}


async def test_a_run_without_a_project_costs_no_look_at_projects(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("nobody asked for a project")

    monkeypatch.setattr(SubmissionLedger, "earlier", never)
    monkeypatch.setattr(SubmissionLedger, "_accept_placed", never)
    answer = await api.submit({"task": "t", "source": {"kind": "git", "url": SHOP["repository"]}})
    assert answer.status_code == 202
    assert "project_id" not in api.handed_over[-1].data.model_dump()
