"""`/v1/sessions`: one run at a time, each on what the one before has left and knowing what was said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from codeagent import clock
from codeagent.broker.topics import RUN_EVENTS
from codeagent.eventlog.log import EventLog
from codeagent.messages.catalog import encode_data
from codeagent.messages.commands import CancelRun, ExecuteOperation, GenerateReply, SubmitRun
from codeagent.messages.conversation import AssistantMessage, ToolCall
from codeagent.messages.envelope import Envelope, Message, Payload
from codeagent.messages.ids import derived_uuid, run_stream
from codeagent.messages.results import ProviderResult, SandboxResult
from codeagent.messages.values import (
    ApprovalPolicy,
    Artifact,
    CollectPatch,
    Files,
    Outcome,
    PrepareFiles,
    RunStatus,
    Turn,
)
from codeagent.messages.verification import Verification
from codeagent.projections.runs import RunsProjector
from codeagent.projections.sessions import SessionsProjector
from codeagent.workers.step import StepLoop
from codeagent.workers.transcripts import earlier_turns
from tests.integration.edge.another_edge import beside_a_submission
from tests.integration.edge.conftest import Api
from tests.integration.projections.logs import Happened, call, caught_up, write
from tests.integration.subject_keys import SHARED
from tests.integration.workers.system import Mailbox

REPOSITORY = "https://git.example.org/team/shop.git"
SOURCE = {"kind": "git", "url": REPOSITORY, "ref": "main"}
BASE = "sha256:" + "b" * 64
_keys = iter(range(1_000_000))


@pytest.fixture(params=[True], ids=["durable"])
def durable(request: pytest.FixtureRequest) -> bool:
    """Commands come out where the test can hand them on."""
    return bool(request.param)


async def begin(api: Api, **body: Any) -> str:
    made = await api.http.post("/v1/sessions", json=body, headers={"Idempotency-Key": f"s{next(_keys)}"})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def say(api: Api, session_id: str, content: str, key: str | None = None, **body: Any) -> httpx2.Response:
    headers = {"Idempotency-Key": key or f"m{next(_keys)}"}
    return await api.http.post(
        f"/v1/sessions/{session_id}/messages", json={"content": content, **body}, headers=headers
    )


def ordered(api: Api) -> tuple[Envelope, SubmitRun]:
    """The newest command that was accepted."""
    row = api.handed_over[-1]
    assert isinstance(row.data, SubmitRun)
    return row.envelope, row.data


async def remembered(api: Api) -> tuple[Turn, ...]:
    """What the newest run's model is told of the runs before."""
    envelope, sent = ordered(api)
    runs = await EventLog(api.database).read_ends([run_stream(run_id) for run_id in sent.follows or ()])
    return earlier_turns(envelope.tenant_id, runs)


class Work:
    """The newest run on a real agent worker. The test answers for models and sandboxes: `checkpoint` is what the one
    tool call leaves."""

    def __init__(self, api: Api) -> None:
        self.envelope, self.submit = ordered(api)
        self._mailbox = Mailbox()
        self._agent = StepLoop(api.database, EventLog(api.database), self._mailbox, events_topic=RUN_EVENTS)

    async def take(self, data: Payload) -> None:
        message_id = self.envelope.id if isinstance(data, SubmitRun) else clock.new_uuid()
        await self._agent.handle(Message(replace(self.envelope, id=message_id, name=data.NAME), data))

    async def prepared(self, base: str = BASE) -> PrepareFiles:
        """The run with its files; returns what was asked for. `base` is what its source comes to."""
        await self.take(self.submit)
        command = self._mailbox.commands[-1].data
        assert isinstance(command, ExecuteOperation)
        assert isinstance(command.operation, PrepareFiles)
        files = command.operation.continues or Files(base=base)
        await self._sandbox(base=files.base, checkpoint=files.checkpoint)
        return command.operation

    async def _sandbox(self, **fields: Any) -> None:
        command = self._mailbox.commands[-1].data
        assert isinstance(command, ExecuteOperation)
        values = {"checkpoint": command.checkpoint, "reason": "ok", **fields}
        await self.take(
            SandboxResult(effect_id=command.effect_id, run_id=command.run_id, attempt=1, outcome=Outcome.DONE, **values)
        )

    async def says(self, *calls: ToolCall, text: str = "") -> None:
        command = self._mailbox.commands[-1].data
        assert isinstance(command, GenerateReply)
        message = AssistantMessage(text=text, tool_calls=calls)
        await self.take(
            ProviderResult(
                effect_id=command.effect_id, run_id=command.run_id, attempt=1, outcome=Outcome.DONE, message=message
            )
        )

    async def changes(self, checkpoint: str) -> None:
        await self.says(ToolCall(id="c", name="shell", arguments='{"command": "true"}'))
        await self._sandbox(checkpoint=checkpoint)

    async def completes(self, answer: str) -> None:
        await self.says(text=answer)
        command = self._mailbox.commands[-1].data
        assert isinstance(command, ExecuteOperation)
        assert isinstance(command.operation, CollectPatch)
        patch = Artifact(name="changes.patch", media_type="text/x-diff", size_bytes=1, digest=command.checkpoint)
        await self._sandbox(patch=patch if command.checkpoint else None)
        if self.submit.verification is not None:
            await self._sandbox()

    async def whole(self, checkpoint: str, answer: str) -> None:
        await self.prepared()
        await self.changes(checkpoint)
        await self.completes(answer)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


async def test_a_session_is_made_once_found_renamed_and_closed(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    made = await api.http.post("/v1/sessions", json={"title": "first"}, headers=headers)
    session = made.json()
    path = f"/v1/sessions/{session['id']}"
    assert (made.status_code, made.headers["location"], session["closed"]) == (201, path, False)
    again = await api.http.post("/v1/sessions", json={"title": "first"}, headers=headers)
    assert (again.status_code, again.json(), again.headers["idempotent-replayed"]) == (200, session, "true")
    other = await api.http.post("/v1/sessions", json={}, headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"
    assert (await api.http.patch(path, json={"title": "x"})).status_code == 428
    renamed = await api.http.patch(path, json={"title": "second"}, headers={"If-Match": '"1"'})
    assert (renamed.json()["title"], renamed.headers["etag"]) == ("second", '"2"')
    assert (await api.http.patch(path, json={"title": "x"}, headers={"If-Match": '"1"'})).status_code == 412
    for _ in range(2):
        assert (await api.http.delete(path, headers={"If-Match": '"2"'})).status_code == 204
    assert (await api.http.get(path)).json()["closed"]
    refused = await say(api, session["id"], "t", source=SOURCE)
    assert (refused.status_code, refused.json()["code"]) == (409, "session_closed")
    stored = await EventLog(api.database).read_stream(f"session-{session['id']}")
    assert [event.type for event in stored] == ["session.created", "session.renamed", "session.closed"]


async def test_a_session_shows_what_its_runs_have_brought_alone_and_in_the_list(api: Api) -> None:
    session_id, empty = await begin(api), await begin(api)
    said = await say(api, session_id, "Rename it.", source=SOURCE)
    await Work(api).whole(digest("1"), "Renamed.")
    run_id = str(said.json()["id"])
    [tenant] = {event.tenant_id for event in await EventLog(api.database).read_stream(run_stream(run_id))}
    await write(api.database, [Happened(run_id, call(run_id), tenant_id=tenant)])
    await caught_up(api.database, SessionsProjector(api.database, EventLog(api.database)))
    stats = (await api.http.get(f"/v1/sessions/{session_id}")).json()["stats"]
    assert stats["runs"] == {"submitted": 1, "completed": 1, "failed": 0, "canceled": 0, "rejected": 0}
    assert (stats["calls"], stats["input_tokens"], stats["output_tokens"], stats["cost_usd"]) == (1, 100, 10, "0.10")
    assert (stats["last_run_id"], stats["last_run_status"]) == (run_id, "completed")
    listed = {item["id"]: item["stats"] for item in (await api.http.get("/v1/sessions")).json()["items"]}
    assert listed[session_id] == stats
    assert listed[empty] == (await api.http.get(f"/v1/sessions/{empty}")).json()["stats"]
    assert (listed[empty]["runs"]["submitted"], listed[empty]["last_run_id"]) == (0, None)
    headers = {"If-Match": '"1"'}
    renamed = await api.http.patch(f"/v1/sessions/{session_id}", json={"title": "x"}, headers=headers)
    assert renamed.json()["stats"] == stats


async def test_a_session_goes_on_after_a_run_of_somebody_who_was_erased(api: Api) -> None:
    session_id = await begin(api)
    await say(api, session_id, "first", source=SOURCE)
    await Work(api).whole(digest("1"), "Done.")
    run_id = ordered(api)[1].run_id
    key_id = (await EventLog(api.database).read_stream(run_stream(run_id)))[0].key_id
    assert key_id is not None
    kept = SHARED.kept[key_id]
    try:
        await SHARED.shred(key_id, clock.now())
        await asyncio.sleep(0.06)
        assert (await api.http.get(f"/v1/runs/{run_id}")).status_code == 410
        assert (await say(api, session_id, "more", source=SOURCE)).status_code == 202
        assert ordered(api)[1].follows is None
    finally:
        SHARED.kept[key_id] = kept


async def test_what_somebody_said_who_was_erased_is_in_no_run_of_the_others(api: Api) -> None:
    """Later runs name the ones before: their words are read where they stand, while they may be."""
    session_id = await begin(api)
    await say(api, session_id, "one", source=SOURCE)
    await Work(api).whole(digest("1"), "one done")
    await say(api, session_id, "two")
    work = Work(api)
    work.envelope = replace(work.envelope, actor_id="usr_colleague")
    await work.whole(digest("2"), "two done")
    await say(api, session_id, "three")
    sent = ordered(api)[1]
    assert b"one" not in encode_data(sent)
    assert [turn.task for turn in await remembered(api)] == ["one", "two"]
    [[first, *_], [second, *_]] = await EventLog(api.database).read_ends(
        [run_stream(run) for run in sent.follows or ()]
    )
    assert first.key_id is not None
    assert first.key_id != second.key_id
    kept = SHARED.kept[first.key_id]
    try:
        await SHARED.shred(first.key_id, clock.now())
        await asyncio.sleep(0.06)
        assert [turn.task for turn in await remembered(api)] == ["two"]
    finally:
        SHARED.kept[first.key_id] = kept


async def test_the_next_run_has_the_files_and_the_words_of_those_before(api: Api) -> None:
    session_id = await begin(api)
    first = await say(api, session_id, "Rename it.", source=SOURCE, model="test/model", limits={"max_steps": 3})
    assert (first.status_code, first.headers["location"]) == (202, f"/v1/runs/{first.json()['id']}")
    assert (ordered(api)[1].continues, ordered(api)[1].follows) == (None, None)
    await Work(api).whole(digest("1"), "Renamed.")
    second = await say(api, session_id, "Test it.")
    envelope, sent = ordered(api)
    assert sent.continues == Files(base=BASE, checkpoint=digest("1"))
    assert [(turn.task, turn.answer, turn.status) for turn in await remembered(api)] == [
        ("Rename it.", "Renamed.", RunStatus.COMPLETED)
    ]
    assert (sent.model, sent.source.model_dump(), sent.limits.max_steps) == ("test/model", SOURCE, 50)
    assert envelope.correlation_id == derived_uuid(first.json()["id"], "submit")
    assert second.json()["session_id"] == session_id
    work = Work(api)
    assert (await work.prepared()).continues == sent.continues
    await work.changes(digest("2"))
    await work.completes("Tested.")
    run = (await api.http.get(f"/v1/runs/{second.json()['id']}")).json()
    assert [artifact["digest"] for artifact in run["artifacts"]] == [digest("2")]
    artifacts = await api.http.get(f"/v1/runs/{run['id']}/artifacts")
    assert artifacts.json() == {"items": run["artifacts"], "next_cursor": None}
    assert artifacts.headers["etag"] == f'"{run["version"]}"'
    await say(api, session_id, "More.")
    sent = ordered(api)[1]
    assert sent.continues == Files(base=BASE, checkpoint=digest("2"))
    assert [turn.task for turn in await remembered(api)] == ["Rename it.", "Test it."]


async def test_the_next_run_asks_people_about_what_the_one_before_did_unless_the_message_says_otherwise(
    api: Api,
) -> None:
    session_id = await begin(api)
    first = await say(api, session_id, "Rename it.", source=SOURCE, approvals={"tools": ["search"]})
    assert first.json()["approvals"]["tools"] == ["search"]
    await Work(api).whole(digest("1"), "Renamed.")
    await say(api, session_id, "Test it.")
    assert ordered(api)[1].approvals == ApprovalPolicy(tools=("search",))
    await Work(api).whole(digest("2"), "Tested.")
    await say(api, session_id, "More.", approvals={"tools": ["edit_file"], "expires_seconds": 60})
    assert ordered(api)[1].approvals == ApprovalPolicy(tools=("edit_file",), expires_seconds=60)


async def test_the_next_run_is_judged_as_the_one_before_unless_the_message_says_otherwise(api: Api) -> None:
    session_id = await begin(api)
    asked = {"command": "make check", "protected": ["tests/"], "timeout_seconds": 60}
    first = await say(api, session_id, "Rename it.", source=SOURCE, verification=asked)
    assert (first.json()["verification"], first.json()["verdict"]) == (asked, None)
    await Work(api).whole(digest("1"), "Renamed.")
    await say(api, session_id, "Test it.")
    assert ordered(api)[1].verification == Verification.model_validate(asked)
    await Work(api).whole(digest("2"), "Tested.")
    await say(api, session_id, "More.", verification={"command": "true"})
    assert ordered(api)[1].verification == Verification(command="true")


@pytest.mark.parametrize("amount", [100_000.0, 1e-9, "2.50"])
async def test_a_message_may_limit_what_its_run_costs(api: Api, amount: float | str) -> None:
    answer = await say(api, await begin(api), "Rename it.", source=SOURCE, limits={"max_cost_usd": amount})
    assert answer.status_code == 202, answer.text
    assert ordered(api)[1].limits.max_cost_usd == Decimal(str(amount))


async def test_a_canceled_run_leaves_what_it_had_and_one_without_files_what_it_was_given(api: Api) -> None:
    session_id = await begin(api)
    await say(api, session_id, "one", source=SOURCE)
    await Work(api).whole(digest("1"), "done")
    run_id = (await say(api, session_id, "two")).json()["id"]
    work = Work(api)
    await work.prepared()
    await work.changes(digest("2"))
    assert (await api.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 202
    assert api.handed_over[-1].envelope.correlation_id == work.envelope.correlation_id
    await work.take(CancelRun(run_id=run_id))
    await work.says(text="too late")  # its answer is what the cancel waits for
    await say(api, session_id, "three")
    assert ordered(api)[1].continues == Files(base=BASE, checkpoint=digest("2"))
    assert [turn.status for turn in await remembered(api)] == ["completed", "canceled"]
    work = Work(api)
    await work.take(CancelRun(run_id=work.submit.run_id))
    await work.take(work.submit)  # ends before it has prepared anything
    await say(api, session_id, "four")
    assert ordered(api)[1].continues == Files(base=BASE, checkpoint=digest("2"))


async def test_a_session_whose_source_could_not_be_had_takes_another(api: Api) -> None:
    session_id = await begin(api)
    answer = await say(api, session_id, "one")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/source")
    await say(api, session_id, "one", source={**SOURCE, "ref": "gone"})
    work = Work(api)
    await work.take(CancelRun(run_id=work.submit.run_id))
    await work.take(work.submit)
    await say(api, session_id, "two", source=SOURCE)
    assert ordered(api)[1].source.model_dump() == SOURCE
    await Work(api).whole(digest("1"), "done")
    refused = await say(api, session_id, "three", source=SOURCE)
    assert (refused.status_code, refused.json()["code"]) == (422, "source_not_allowed")


async def test_while_a_run_is_at_work_a_message_is_told_so_and_a_repeat_is_the_run(api: Api) -> None:
    session_id = await begin(api)
    first = await say(api, session_id, "one", "k", source=SOURCE)
    busy = await say(api, session_id, "two")
    assert (busy.status_code, busy.json()["code"]) == (409, "session_busy")
    repeat = await say(api, session_id, "one", "k", source=SOURCE)
    assert (repeat.json()["id"], repeat.headers["idempotent-replayed"]) == (first.json()["id"], "true")
    await Work(api).whole(digest("1"), "done")
    assert (await say(api, session_id, "two")).status_code == 202
    assert (await say(api, session_id, "one", "k", source=SOURCE)).json()["id"] == first.json()["id"]


async def test_of_two_messages_that_race_one_is_taken(api: Api) -> None:
    session_id = await begin(api)
    await say(api, session_id, "one", source=SOURCE)
    await Work(api).whole(digest("1"), "done")
    answers = await asyncio.gather(*(say(api, session_id, f"two {number}") for number in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert {answer.json().get("code") for answer in answers} == {None, "session_busy"}


async def test_a_message_that_another_edge_is_about_to_accept_counts(api: Api) -> None:
    session_id = await begin(api)
    request = say(api, session_id, "go on", source=SOURCE)
    answer = await beside_a_submission(api.database, request, tenant_id="ten_mine", session_id=session_id)
    assert (answer.status_code, answer.json()["code"]) == (409, "session_busy")


async def test_a_message_that_was_made_up_before_another_was_done_does_not_go_on_from_old_files(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await begin(api)
    await say(api, session_id, "one", source=SOURCE)
    await Work(api).whole(digest("1"), "done")
    accept = api.context.submissions.accept

    async def later(submission: Any) -> Any:
        monkeypatch.undo()
        await say(api, session_id, "between")
        await Work(api).whole(digest("2"), "done")
        return await accept(submission)

    monkeypatch.setattr(api.context.submissions, "accept", later)
    late = await say(api, session_id, "two")
    assert (late.status_code, late.json()["code"]) == (409, "session_busy")


async def test_a_session_of_a_project_is_found_by_it_and_keeps_its_rules(api: Api) -> None:
    body = {"name": "shop", "repository": REPOSITORY, "quotas": {"max_runs_per_day": 1}}
    made = await api.http.post("/v1/projects", json=body, headers={"Idempotency-Key": "p"})
    project_id = made.json()["id"]
    other = await begin(api)
    session_id = await begin(api, project_id=project_id)
    listed = (await api.http.get(f"/v1/sessions?project_id={project_id}")).json()
    assert [item["id"] for item in listed["items"]] == [session_id]
    page = (await api.http.get("/v1/sessions?limit=1")).json()
    rest = (await api.http.get(f"/v1/sessions?cursor={page['next_cursor']}")).json()
    assert [item["id"] for item in (*page["items"], *rest["items"])] == [session_id, other]
    run = await api.submit({"task": "t", "session_id": session_id})
    assert (run.status_code, run.json()["project_id"]) == (202, project_id)
    assert run.json()["source"] == {"kind": "git", "url": REPOSITORY, "ref": "HEAD"}
    await Work(api).whole(digest("1"), "done")
    assert (await say(api, session_id, "two")).json()["code"] == "quota_exceeded"
    mismatch = await api.submit({"task": "t", "session_id": other, "project_id": project_id}, "k2")
    assert (mismatch.status_code, mismatch.json()["code"]) == (422, "project_mismatch")


async def test_runs_are_found_by_their_session(api: Api) -> None:
    session_id = await begin(api)
    run_ids = []
    for number in range(3):
        source = {"source": SOURCE} if number == 0 else {}
        run_ids.append((await say(api, session_id, f"{number}", **source)).json()["id"])
        await Work(api).whole(digest("1"), "done")
    while await RunsProjector(api.database, EventLog(api.database)).catch_up():
        pass
    first = await api.http.get(f"/v1/sessions/{session_id}/runs?limit=2")
    assert f"</v1/sessions/{session_id}/runs?limit=2&cursor=" in first.headers["link"]
    rest = await api.http.get(f"/v1/sessions/{session_id}/runs?cursor={first.json()['next_cursor']}")
    assert [item["id"] for item in (*first.json()["items"], *rest.json()["items"])] == run_ids[::-1]
    filtered = await api.http.get(f"/v1/runs?session_id={session_id}")
    assert [item["session_id"] for item in filtered.json()["items"]] == [session_id] * 3


async def test_another_tenants_session_is_none(api: Api) -> None:
    session_id = await begin(api)
    body = {"task": "t", "session_id": session_id, "source": SOURCE}
    answer = await api.stranger.post("/v1/runs", json=body, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_session")
    told = {"content": "t", "source": SOURCE}
    answer = await api.stranger.post(f"/v1/sessions/{session_id}/messages", json=told, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_what_a_run_remembers_is_told_by_its_own_stream(api: Api) -> None:
    session_id = await begin(api)
    first = (await say(api, session_id, "one", source=SOURCE)).json()["id"]
    await Work(api).whole(digest("1"), "done")
    run_id = (await say(api, session_id, "two")).json()["id"]
    await Work(api).prepared()
    stored = await EventLog(api.database).read_stream(run_stream(run_id), limit=1)
    submitted = stored[0].decode()
    assert submitted.follows == (first,)  # type: ignore[attr-defined]
    assert submitted.continues == Files(base=BASE, checkpoint=digest("1"))  # type: ignore[attr-defined]
