"""What a run asks, as the edge shows it, and what becomes of an answer on its way to the run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import httpx2
import pytest

from codeagent import clock
from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_COMMANDS, RUN_EVENTS
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.step import Step
from codeagent.messages.commands import AnswerApproval
from codeagent.messages.envelope import Event, to_headers
from codeagent.messages.events import CancelRequested, InputExpired, InputReceived, RunCanceled, RunResumed
from codeagent.messages.ids import typed_id
from codeagent.messages.values import ApprovalDecision
from codeagent.projections.runs import RunsProjector
from codeagent.subjects.key import key_id_of
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code
from tests.integration.eventlog.steps import (
    APPROVAL,
    cause,
    commit_step,
    new_run,
    prepared,
    started,
    step,
    submitted,
    waiting,
)

TENANT = "ten_mine"
SECOND = typed_id("apr", UUID(int=2))
ALLOW, REJECT = {"decision": "allow_once"}, {"decision": "reject", "comment": "no"}


@pytest.fixture
def durable() -> bool:
    return True


async def happens(api: Api, run_id: str, after: int, *facts: Event, cause_id: UUID | None = None) -> None:
    """Facts of the run: in the log, and told by the topic as the tail would tell them."""
    made: Step = step(run_id, after, facts, tenant=TENANT)
    if cause_id is not None:
        envelope = replace(cause(run_id, TENANT), id=cause_id)
        made = replace(made, cause=envelope, events=prepared(run_id, after, facts, envelope))
    await commit_step(api.database, made)
    for event in made.events:
        api.context.hub.receive(LiveRecord(RUN_EVENTS, run_id, to_headers(event.envelope()), event.data))


def received(decision: str = "allow_once", principal: str = "usr_other", comment: str = "") -> list[Event]:
    return [
        InputReceived(approval_id=APPROVAL, decision=ApprovalDecision(decision), comment=comment, principal=principal),
        RunResumed(deadline_at=clock.now()),
    ]


@pytest.fixture
async def asking(api: Api) -> str:
    """A run that waits for an answer, at version 2."""
    run_id = new_run()
    await happens(api, run_id, 0, started(), waiting())
    return run_id


async def answer(
    api: Api,
    run_id: str,
    said: object,
    *,
    approval: str = APPROVAL,
    key: str = "k1",
    match: str | None = '"2"',
    **headers: str,
) -> httpx2.Response:
    sent = {"Idempotency-Key": key, **headers} | ({} if match is None else {"If-Match": match})
    return await api.http.post(f"/v1/runs/{run_id}/approvals/{approval}", json=said, headers=sent)


def ordered(api: Api) -> list[AnswerApproval]:
    return [row.data for row in api.handed_over if isinstance(row.data, AnswerApproval)]


async def test_a_run_that_waits_shows_what_it_asks(api: Api, asking: str) -> None:
    run = (await api.http.get(f"/v1/runs/{asking}")).json()
    assert (run["status"], run["status_reason"], run["deadline_at"]) == ("input_required", "approval_required", None)
    page = await api.http.get(f"/v1/runs/{asking}/approvals")
    one = await api.http.get(f"/v1/runs/{asking}/approvals/{APPROVAL}")
    assert page.json() == {"items": [one.json()], "next_cursor": None}
    assert run["pending_approvals"] == [one.json()]
    assert one.headers["etag"] == page.headers["etag"] == '"2"'
    assert (one.json()["status"], one.json()["arguments"]) == ("pending", '{"command": "make"}')


async def test_runs_that_wait_can_be_listed(api: Api, asking: str) -> None:
    await RunsProjector(api.database, EventLog(api.database)).catch_up()
    found = (await api.http.get("/v1/runs?status=input_required")).json()["items"]
    assert [(run["id"], run["status_reason"]) for run in found] == [(asking, "approval_required")]


async def test_an_answer_is_passed_on_and_safe_before_it_is_acknowledged(api: Api, asking: str) -> None:
    done = await answer(api, asking, REJECT)
    assert (done.status_code, done.json()["status"]) == (202, "pending")
    [row] = await api.database.fetch("SELECT topic, key FROM outbox WHERE value IS NOT NULL")
    assert (row["topic"], row["key"]) == (RUN_COMMANDS, asking)
    [command] = ordered(api)
    assert (command.decision, command.comment) == ("reject", "no")
    [handed] = api.handed_over
    assert (handed.envelope.actor_id, handed.envelope.tenant_id) == ("usr_mine", TENANT)


@pytest.mark.parametrize("durable", [False])
async def test_without_a_broker_an_answer_is_not_accepted(api: Api, asking: str) -> None:
    await api.publisher.stop()
    refused = await answer(api, asking, ALLOW)
    assert (refused.status_code, code(refused)) == (503, "broker_unavailable")
    await api.publisher.start()
    assert (await answer(api, asking, ALLOW)).status_code == 202


async def test_a_repeat_is_one_answer_and_told_as_such_once_it_is_in_the_log(api: Api, asking: str) -> None:
    for _ in range(2):
        assert (await answer(api, asking, ALLOW)).status_code == 202
    first, second = api.handed_over
    assert first.envelope.id == second.envelope.id
    assert len(await api.database.fetch("SELECT 1 FROM outbox WHERE value IS NOT NULL")) == 1
    await happens(api, asking, 2, *received(principal="usr_mine"), cause_id=first.envelope.id)
    again = await answer(api, asking, ALLOW)
    assert (again.status_code, again.json()["status"]) == (200, "allowed")
    assert again.headers["idempotent-replayed"] == "true"
    other = await answer(api, asking, REJECT)
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")


async def test_an_answer_names_the_version_that_it_was_decided_on(api: Api, asking: str) -> None:
    for match, status, expected in ((None, 428, "precondition_required"), ('"1"', 412, "version_mismatch")):
        refused = await answer(api, asking, ALLOW, match=match)
        assert (refused.status_code, code(refused)) == (status, expected)
    missing = await api.http.post(f"/v1/runs/{asking}/approvals/{APPROVAL}", json=ALLOW, headers={"If-Match": '"2"'})
    assert (missing.status_code, code(missing)) == (400, "idempotency_key_missing")
    assert ordered(api) == []
    assert (await answer(api, asking, ALLOW, match="*")).status_code == 202


@pytest.mark.parametrize(
    ("what", "status"),
    [("answered", "rejected"), ("expired", "expired"), ("canceled", "canceled")],
)
async def test_what_waits_no_more_takes_no_answer(api: Api, asking: str, what: str, status: str) -> None:
    facts: dict[str, list[Event]] = {
        "answered": received("reject"),
        "expired": [InputExpired(approval_id=APPROVAL), RunResumed(deadline_at=clock.now())],
        "canceled": [RunCanceled(status_reason="canceled_by_user")],
    }
    await happens(api, asking, 2, *facts[what])
    refused = await answer(api, asking, ALLOW)
    assert (refused.status_code, code(refused)) == (409, "invalid_state_transition")
    assert ordered(api) == []
    assert (await api.http.get(f"/v1/runs/{asking}/approvals/{APPROVAL}")).json()["status"] == status
    run = (await api.http.get(f"/v1/runs/{asking}")).json()
    assert run["pending_approvals"] == []
    assert run["status"] == ("canceled" if what == "canceled" else "working")


async def test_an_approval_takes_no_answer_from_the_moment_it_expires(api: Api) -> None:
    run_id = new_run()
    await happens(api, run_id, 0, started(), waiting(seconds=0))
    refused = await answer(api, run_id, ALLOW)
    assert (refused.status_code, code(refused)) == (409, "invalid_state_transition")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "validation_failed"),
        ({"decision": "maybe"}, "validation_failed"),
        ({**ALLOW, "comment": "x" * 2_001}, "validation_failed"),
        ({**ALLOW, "more": 1}, "validation_failed"),
    ],
    ids=["nothing", "maybe", "long", "more"],
)
async def test_an_answer_that_cannot_be_is_refused(api: Api, asking: str, said: object, expected: str) -> None:
    refused = await answer(api, asking, said)
    assert (refused.status_code, code(refused)) == (422, expected)


async def test_whoever_waits_is_told_whether_their_answer_counts(api: Api, asking: str) -> None:
    mine = asyncio.create_task(answer(api, asking, ALLOW, Prefer="wait=20"))
    theirs = asyncio.create_task(answer(api, asking, REJECT, key="k2", Prefer="wait=20"))
    async with asyncio.timeout(10):
        while api.traffic.load.streams < 2:
            await asyncio.sleep(0.01)
    won = next(
        row for row in api.handed_over if isinstance(row.data, AnswerApproval) and row.data.decision == "allow_once"
    )
    await happens(api, asking, 2, *received(principal="usr_mine"), cause_id=won.envelope.id)
    first, second = await asyncio.wait_for(mine, 5), await asyncio.wait_for(theirs, 5)
    assert (first.status_code, first.json()["status"], first.headers["etag"]) == (200, "allowed", '"4"')
    assert first.headers["preference-applied"] == "wait=20"
    assert (second.status_code, code(second)) == (409, "invalid_state_transition")


async def test_what_was_asked_before_stays_in_the_list(api: Api, asking: str) -> None:
    await happens(api, asking, 2, *received("allow_always", comment="fine"), waiting(SECOND))
    path = f"/v1/runs/{asking}/approvals"
    first = await api.http.get(f"{path}?limit=1")
    assert [item["id"] for item in first.json()["items"]] == [SECOND]
    rest = await api.http.get(path, params={"limit": 1, "cursor": first.json()["next_cursor"]})
    [older] = rest.json()["items"]
    assert (older["id"], older["decision"], older["comment"], older["answered_by"]) == (
        APPROVAL,
        "allow_always",
        "fine",
        "usr_other",
    )
    assert rest.json()["next_cursor"] is None
    assert f'<{path}?limit=1&cursor={SECOND}>; rel="next"' == first.headers["link"]
    refused = await api.http.get(f"{path}?cursor=nonsense")
    assert (refused.status_code, code(refused)) == (400, "malformed_cursor")


async def test_a_comment_and_a_reason_go_with_their_authors_and_not_with_the_run(api: Api) -> None:
    """Not even an edge that has shown them shows them then, and no fold has them."""
    run_id, author = new_run(), new_run()
    key = await api.database.subjects.of(TENANT, author)

    async def says(after: int, *facts: Event) -> None:
        made = step(run_id, after, facts, tenant=TENANT)
        await commit_step(api.database, replace(made, events=prepared(run_id, after, facts, made.cause, key)))

    await happens(api, run_id, 0, submitted(run_id), waiting())
    await says(2, *received("reject", author, "canary comment"))
    await says(4, CancelRequested(principal=author, reason="canary reason"), RunCanceled())

    async def shown() -> list[str]:
        one = (await api.http.get(f"/v1/runs/{run_id}/approvals/{APPROVAL}")).json()
        [item] = (await api.http.get(f"/v1/runs/{run_id}/approvals")).json()["items"]
        run = (await api.http.get(f"/v1/runs/{run_id}")).json()
        past = (await api.http.get(f"/v1/runs/{run_id}/state?at=6")).json()
        assert (one["answered_by"], run["status"]) == (author, "canceled")
        return [one["comment"], item["comment"], run["message"], past["message"]]

    assert await shown() == ["canary comment", "canary comment", "canary reason", "canary reason"]
    assert "canary" not in repr(await api.context.views.get(TENANT, run_id))
    await api.database.subjects.close_for_good(TENANT, author, clock.now())
    await api.database.subjects.shred(key_id_of(TENANT, author), clock.now())
    await asyncio.sleep(0.06)
    assert await shown() == [""] * 4


async def test_what_is_not_there_is_not_found(api: Api, asking: str) -> None:
    for response in (
        await answer(api, asking, ALLOW, approval=SECOND),
        await answer(api, new_run(), ALLOW),
        await api.http.get(f"/v1/runs/{asking}/approvals/apr_x"),
        await api.stranger.get(f"/v1/runs/{asking}/approvals"),
        await api.stranger.post(
            f"/v1/runs/{asking}/approvals/{APPROVAL}", json=ALLOW, headers={"Idempotency-Key": "k", "If-Match": "*"}
        ),
    ):
        assert (response.status_code, code(response)) == (404, "not_found")


async def test_a_run_says_whom_it_will_ask_and_a_misspelt_tool_is_refused(api: Api) -> None:
    made = await api.submit(await body(api, approvals={"tools": ["shell"]}))
    assert made.json()["approvals"] == {"tools": ["shell"], "expires_seconds": 86_400}
    assert (await api.submit(await body(api, approvals={"tools": "all_changing"}), "k2")).status_code == 202
    for number, (tools, expected) in enumerate(
        (
            (["shel"], "unsupported_tool"),
            (["submit"], "unsupported_tool"),
            ([], "validation_failed"),
            ("all", "validation_failed"),
        )
    ):
        refused = await api.submit(await body(api, approvals={"tools": tools}), f"r{number}")
        assert (refused.status_code, code(refused)) == (422, expected), tools
    refused = await api.submit(await body(api, approvals={"tools": ["shell", "shel"]}), "r9")
    assert refused.json()["errors"][0]["pointer"] == "/approvals/tools/1"
    plain = await api.submit(await body(api), "k3")
    assert plain.json()["approvals"] is None
