"""`Prefer: wait`: the answer is the ended run if it ends in time, told by its events and not by asking again."""

from __future__ import annotations

import asyncio
import time

import pytest

from codeagent.broker.tail import LiveRecord
from codeagent.broker.topics import RUN_DELTAS, RUN_EVENTS
from codeagent.edge.traffic.control import LOOK_SECONDS
from codeagent.edge.traffic.policy import TrafficPolicy
from codeagent.edge.views import RunViews
from codeagent.messages.envelope import Event, to_headers
from codeagent.messages.events import RunCompleted
from codeagent.projections.view import RunView
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code
from tests.integration.edge.wire import serve
from tests.integration.eventlog.steps import commit_step, started, step

pytestmark = pytest.mark.parametrize("durable", [True], indirect=True, ids=["durable"])

LONG = {"Prefer": "wait=50"}


@pytest.fixture
def traffic_policy() -> TrafficPolicy:
    return TrafficPolicy(tenant_streams=2)


async def happens(api: Api, run_id: str, after: int, *facts: Event) -> None:
    """Facts of the run: in the log, and told by the topic as the tail would tell them."""
    made = step(run_id, after, facts, tenant="ten_mine")
    await commit_step(api.database, made)
    for event in made.events:
        api.context.hub.receive(LiveRecord(RUN_EVENTS, run_id, to_headers(event.envelope()), event.data))


async def until_waiting(api: Api, number: int = 1) -> None:
    async with asyncio.timeout(10):
        while api.traffic.load.streams < number:
            await asyncio.sleep(0.01)


async def ordered(api: Api) -> str:
    return str((await api.submit(await body(api))).json()["id"])


async def test_a_run_that_ends_in_time_is_the_answer_to_its_submission(api: Api) -> None:
    order = await body(api)
    waiting = asyncio.create_task(api.http.post("/v1/runs", json=order, headers={**LONG, "Idempotency-Key": "k1"}))
    await until_waiting(api)
    run_id = (await api.submit(order)).json()["id"]
    await happens(api, run_id, 0, started())
    # Whoever waits is not bound by the time of a request.
    api.limit(request_seconds=0.0)
    await asyncio.sleep(2 * LOOK_SECONDS)
    assert not waiting.done()
    api.limit(request_seconds=90.0)
    await happens(api, run_id, 1, RunCompleted(message="Done."))
    answer = await asyncio.wait_for(waiting, 5)
    assert (answer.status_code, answer.json()["status"], answer.json()["version"]) == (200, "completed", 2)
    assert answer.headers["preference-applied"] == "wait=50"
    assert answer.headers["vary"] == "Prefer"
    assert answer.headers["location"] == f"/v1/runs/{run_id}"
    assert answer.headers["etag"] == '"2"'
    assert api.traffic.load.streams == 0


async def test_a_run_that_does_not_is_answered_as_accepted(api: Api) -> None:
    headers = {"Prefer": "wait=1", "Idempotency-Key": "k1"}
    started_at = time.perf_counter()
    answer = await api.http.post("/v1/runs", json=await body(api), headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (202, "submitted")
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.headers["retry-after"] == "1"
    assert time.perf_counter() - started_at >= 1.0


async def test_whoever_looks_at_a_run_may_wait_for_its_end_too(api: Api) -> None:
    run_id = await ordered(api)
    early = await api.http.get(f"/v1/runs/{run_id}", headers={"Prefer": "wait=1"})
    assert (early.status_code, early.json()["status"]) == (202, "submitted")
    waiting = asyncio.create_task(api.http.get(f"/v1/runs/{run_id}", headers=LONG))
    await until_waiting(api)
    await happens(api, run_id, 0, started(), RunCompleted(message="Done."))
    answer = await asyncio.wait_for(waiting, 5)
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    again = await api.http.get(f"/v1/runs/{run_id}", headers=LONG)
    assert (again.status_code, again.headers["preference-applied"]) == (200, "wait=50")
    plain = await api.http.get(f"/v1/runs/{run_id}")
    assert plain.headers["vary"] == "Prefer"
    assert "preference-applied" not in plain.headers
    known = await api.http.get(f"/v1/runs/{run_id}", headers={**LONG, "If-None-Match": '"2"'})
    assert (known.status_code, known.content) == (304, b"")


async def test_the_log_is_read_when_there_is_something_new_and_not_before(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await ordered(api)
    reads = 0
    read = type(api.context.views).get

    async def counted(views: RunViews, tenant_id: str, wanted: str) -> RunView:
        nonlocal reads
        reads += 1
        return await read(views, tenant_id, wanted)

    monkeypatch.setattr(type(api.context.views), "get", counted)
    waiting = asyncio.create_task(api.http.get(f"/v1/runs/{run_id}", headers=LONG))
    async with asyncio.timeout(10):
        while reads < 2:  # when it came, and once it had subscribed
            await asyncio.sleep(0.01)
    before = reads
    for _ in range(5):
        api.context.hub.receive(LiveRecord(RUN_DELTAS, run_id, [], b"{}"))
        await asyncio.sleep(0.02)
    assert reads == before
    await happens(api, run_id, 0, started(), RunCompleted())
    assert (await asyncio.wait_for(waiting, 5)).status_code == 200
    assert reads <= before + 3


async def test_an_end_that_the_topic_lost_is_found_by_the_regular_check(api: Api) -> None:
    run_id = await ordered(api)
    waiting = asyncio.create_task(api.http.get(f"/v1/runs/{run_id}", headers=LONG))
    await until_waiting(api)
    await commit_step(api.database, step(run_id, 0, [started(), RunCompleted()], tenant="ten_mine"))
    await api.context.hub.check()
    assert (await asyncio.wait_for(waiting, 5)).status_code == 200


async def test_an_edge_that_stops_answers_those_who_wait(api: Api) -> None:
    run_id = await ordered(api)
    waiting = asyncio.create_task(api.http.get(f"/v1/runs/{run_id}", headers=LONG))
    await until_waiting(api)
    await api.context.hub.stop()
    answer = await asyncio.wait_for(waiting, 5)
    assert (answer.status_code, answer.json()["status"]) == (202, "submitted")


async def test_whoever_has_gone_is_waited_for_no_longer(api: Api) -> None:
    run_id = await ordered(api)
    async with serve(api.app) as served:
        async with served.connection() as connection:
            lines = [
                f"GET /v1/runs/{run_id} HTTP/1.1",
                "Host: edge",
                f"X-API-Key: {api.key}",
                "Prefer: wait=50",
                "",
                "",
            ]
            await connection.send("\r\n".join(lines).encode())
            await until_waiting(api)
        async with asyncio.timeout(5):
            while api.traffic.load.streams:
                await asyncio.sleep(0.01)


async def test_those_who_wait_are_bounded_like_streams(api: Api) -> None:
    run_id = await ordered(api)
    waiting = [asyncio.create_task(api.http.get(f"/v1/runs/{run_id}", headers=LONG)) for _ in range(2)]
    await until_waiting(api, 2)
    assert api.traffic.load.in_flight == 0
    refused = await api.http.get(f"/v1/runs/{run_id}", headers=LONG)
    assert (refused.status_code, code(refused)) == (429, "concurrency_limit")
    await happens(api, run_id, 0, started(), RunCompleted())
    assert {(await asyncio.wait_for(task, 5)).status_code for task in waiting} == {200}


async def test_other_preferences_are_kept_too(api: Api) -> None:
    headers = {"Prefer": "respond-async, return=minimal", "Idempotency-Key": "k1"}
    answer = await api.http.post("/v1/runs", json=await body(api), headers=headers)
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["preference-applied"] == "respond-async, return=minimal"
    run_id = answer.headers["location"].rpartition("/")[2]
    canceled = await api.http.post(f"/v1/runs/{run_id}/cancel", headers={"Prefer": "return=minimal"})
    assert (canceled.status_code, canceled.content) == (202, b"")
    assert canceled.headers["preference-applied"] == "return=minimal"
    ignored = await api.http.get(f"/v1/runs/{run_id}", headers={"Prefer": "return=minimal, wait=never"})
    assert ignored.json()["id"] == run_id
    assert "preference-applied" not in ignored.headers
