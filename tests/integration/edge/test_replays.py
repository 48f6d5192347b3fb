"""`POST /v1/runs/{id}/replays`: another version of an agent goes on with what a run had said and done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from codeagent.edge import replayed
from codeagent.eventlog.log import EventLog
from codeagent.messages.ids import run_stream
from codeagent.messages.values import ApprovalPolicy, Files, Replays
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_sessions import SOURCE, Work, digest, ordered, remembered
from tests.integration.eventlog.steps import commit_step, failed, new_run, step

_keys = iter(range(1_000_000))
MISSING = digest("9")


@pytest.fixture(params=[True], ids=["durable"])
def durable(request: pytest.FixtureRequest) -> bool:
    """Commands come out where the test can hand them on."""
    return bool(request.param)


async def post(api: Api, path: str, body: dict[str, Any], key: str | None = None) -> httpx2.Response:
    return await api.http.post(path, json=body, headers={"Idempotency-Key": key or f"r{next(_keys)}"})


async def define(api: Api, name: str, **version: Any) -> None:
    assert (await post(api, "/v1/agents", {"name": name})).status_code == 201
    made = await post(api, f"/v1/agents/{name}/versions", version)
    assert made.status_code == 201, made.text


async def go_on(api: Api, run_id: str, until: int, agent: str = "coder@1", key: str | None = None) -> httpx2.Response:
    return await post(api, f"/v1/runs/{run_id}/replays", {"agent": agent, "until_version": until}, key)


def refused(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@dataclass(frozen=True)
class Recorded:
    """An ended run, and its files after its only command. `places` are versions by the name of the event there."""

    run_id: str
    files: Files
    places: dict[str, int]

    @property
    def whole(self) -> int:
        """After the command, before the model is asked again."""
        return self.places["tool.call.completed"]


async def recorded(api: Api, checkpoint: str | None = None, **body: Any) -> Recorded:
    base = await api.context.store.put("ten_mine", b"an archive")
    changed = checkpoint or await api.context.store.put("ten_mine", b"a patch")
    accepted = await api.submit({"task": "Fix it.", "source": SOURCE, **body}, f"r{next(_keys)}")
    assert accepted.status_code == 202, accepted.text
    work = Work(api)
    await work.prepared(base)
    await work.changes(changed)
    await work.completes("done")
    run_id = accepted.json()["id"]
    stored = await EventLog(api.database).read_stream(run_stream(run_id))
    places = {event.type: event.version for event in stored}
    return Recorded(run_id, Files(base=base, checkpoint=changed), places)


async def test_the_new_run_has_task_conversation_and_files_of_the_old_one_and_all_else_of_the_version(api: Api) -> None:
    await define(api, "reader", instructions="Be brief.", model="test/model", tools=["read_file"])
    before = await recorded(api)
    head = (await api.http.get(f"/v1/runs/{before.run_id}")).json()["version"]
    answer = await go_on(api, before.run_id, before.whole, "reader@1")
    run = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/runs/{run['id']}")
    assert (run["task"], run["agent"], run["agent_version"], run["model"]) == ("Fix it.", "reader", 1, "test/model")
    assert (run["source"], run["replays_run_id"]) == (SOURCE, before.run_id)
    _, command = ordered(api)
    assert command.definition is not None
    assert (command.definition.instructions, command.definition.tools) == ("Be brief.", ("read_file", "submit"))
    assert command.continues == before.files
    assert command.replays == Replays(run_id=before.run_id, until_version=before.whole)
    operation = await Work(api).prepared()
    assert operation.continues == before.files
    assert (await api.http.get(f"/v1/runs/{run['id']}")).json()["replays_run_id"] == before.run_id
    assert (await api.http.get(f"/v1/runs/{before.run_id}")).json()["version"] == head


async def test_from_its_beginning_it_is_an_ordinary_run_of_its_source(api: Api) -> None:
    before = await recorded(api)
    assert (await go_on(api, before.run_id, 1)).status_code == 202
    assert (ordered(api)[1].continues, ordered(api)[1].source) == (None, (await Work(api).prepared()).source)


async def test_a_repeat_is_the_same_run_whatever_has_become_of_the_version(api: Api) -> None:
    await define(api, "reader")
    before = await recorded(api)
    first = await go_on(api, before.run_id, before.whole, "reader@1", "k")
    moved = {"If-Match": "*"}
    assert (await api.http.post("/v1/agents/reader/versions/1/retire", headers=moved)).status_code == 200
    again = await go_on(api, before.run_id, before.whole, "reader@1", "k")
    assert (again.status_code, again.json()["id"], again.headers["idempotent-replayed"]) == (
        202, first.json()["id"], "true",
    )  # fmt: skip
    assert refused(await go_on(api, before.run_id, 1, "reader@1", "k")) == (422, "idempotency_key_reused")
    assert refused(await go_on(api, before.run_id, before.whole, "reader@1")) == (422, "unsupported_agent")


async def test_only_where_the_conversation_is_whole(api: Api) -> None:
    before = await recorded(api)
    for name in ("tool.call.started", "message.completed", "run.completed"):
        answer = await go_on(api, before.run_id, before.places[name])
        assert refused(answer) == (422, "conversation_not_whole"), name
        assert answer.json()["errors"][0]["pointer"] == "/until_version"
    assert refused(await go_on(api, before.run_id, 10**6)) == (422, "conversation_not_whole")


async def test_a_run_at_work_has_nothing_to_go_on_with_yet(api: Api) -> None:
    accepted = await api.submit({"task": "t", "source": SOURCE})
    await Work(api).prepared()
    assert refused(await go_on(api, accepted.json()["id"], 1)) == (409, "run_not_ended")


async def test_a_run_that_ended_before_it_began_has_nothing_to_go_on_with(api: Api) -> None:
    run_id = new_run()
    await commit_step(api.database, step(run_id, 0, [failed()], tenant="ten_mine"))
    assert refused(await go_on(api, run_id, 1)) == (422, "conversation_not_whole")


async def test_another_tenants_run_is_none(api: Api) -> None:
    before = await recorded(api)
    body = {"agent": "coder@1", "until_version": before.whole}
    path = f"/v1/runs/{before.run_id}/replays"
    answer = await api.stranger.post(path, json=body, headers={"Idempotency-Key": "k"})
    assert refused(answer) == (404, "not_found")


async def test_files_that_are_gone_are_said_to_be(api: Api) -> None:
    before = await recorded(api, checkpoint=MISSING)
    assert refused(await go_on(api, before.run_id, before.whole)) == (410, "artifact_gone")
    assert (await go_on(api, before.run_id, 1)).status_code == 202


async def emptied(api: Api, run_id: str) -> None:
    """As erasure and retention leave a run."""
    await api.database.write("UPDATE events SET sealed = NULL WHERE metadata ->> 'runid' = $1", run_id)


async def test_what_was_erased_is_gone_for_those_as_well_who_had_seen_it(api: Api) -> None:
    before = await recorded(api)
    assert (await api.http.get(f"/v1/runs/{before.run_id}")).json()["task"] == "Fix it."
    await emptied(api, before.run_id)
    for until in (before.whole, 1):
        assert refused(await go_on(api, before.run_id, until)) == (410, "erased")


async def test_a_run_is_not_gone_on_with_that_has_replayed_what_was_erased(api: Api) -> None:
    before = await recorded(api)
    second = (await go_on(api, before.run_id, before.whole)).json()["id"]
    await Work(api).whole(before.files.checkpoint, "done")
    await emptied(api, before.run_id)
    assert (await api.http.get(f"/v1/runs/{second}")).status_code == 200
    assert refused(await go_on(api, second, 1)) == (410, "erased")


async def test_task_and_source_are_the_runs_and_a_version_has_to_be_named(api: Api) -> None:
    before = await recorded(api)
    for more in ({"task": "Another."}, {"source": SOURCE}, {"agent": "coder"}, {"until_version": 0}):
        body = {"agent": "coder@1", "until_version": before.whole, **more}
        assert (await post(api, f"/v1/runs/{before.run_id}/replays", body)).status_code == 422, more


async def test_what_people_were_asked_about_they_are_asked_about_again(api: Api) -> None:
    before = await recorded(api, approvals={"tools": ["search"]})
    assert (await go_on(api, before.run_id, before.whole)).status_code == 202
    assert ordered(api)[1].approvals == ApprovalPolicy(tools=("search",))


async def test_the_rules_of_its_project_hold(api: Api) -> None:
    project = {"name": "shop", "repository": SOURCE["url"], "quotas": {"max_runs_per_day": 2}}
    project_id = (await post(api, "/v1/projects", project)).json()["id"]
    before = await recorded(api, project_id=project_id)
    accepted = await go_on(api, before.run_id, before.whole)
    assert (accepted.status_code, accepted.json()["project_id"]) == (202, project_id)
    assert refused(await go_on(api, before.run_id, before.whole)) == (429, "quota_exceeded")
    archived = await api.http.delete(f"/v1/projects/{project_id}", headers={"If-Match": "*"})
    assert archived.status_code == 204
    assert refused(await go_on(api, before.run_id, before.whole)) == (409, "project_archived")


async def test_it_is_no_run_of_the_session_and_knows_what_was_said_there(api: Api) -> None:
    session_id = (await post(api, "/v1/sessions", {})).json()["id"]
    await recorded(api, session_id=session_id)
    second = await api.submit({"task": "More.", "session_id": session_id}, "second")
    work = Work(api)
    await work.whole(await api.context.store.put("ten_mine", b"a patch"), "more done")
    answer = await go_on(api, second.json()["id"], 1)
    assert (answer.status_code, answer.json()["session_id"]) == (202, None)
    command = ordered(api)[1]
    assert command.follows == work.submit.follows
    assert [turn.answer for turn in await remembered(api)] == ["done"]
    assert command.continues == work.submit.continues


async def test_conversations_are_not_handed_on_for_ever(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await recorded(api)
    second = (await go_on(api, before.run_id, before.whole)).json()["id"]
    await Work(api).whole(before.files.checkpoint, "done")
    assert (await go_on(api, second, 1)).status_code == 202
    replays = ordered(api)[1].replays
    assert replays is not None
    assert replays.runs == 2
    monkeypatch.setattr(replayed, "MOST_REPLAYED", 1)
    assert refused(await go_on(api, second, 1)) == (409, "too_many_replays")
