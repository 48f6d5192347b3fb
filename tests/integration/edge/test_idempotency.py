"""The states of an Idempotency-Key, and what a request under it meets in each.

| state                                            | the same body             | another body |
|--------------------------------------------------|---------------------------|--------------|
| unused                                           | 202, a new run            |              |
| accepted                                         | 202, replayed, that run   | 422          |
| being accepted by this edge                      | 202, that run             | 422          |
| being accepted by another edge, not visible yet  | 409, to be repeated       | 409          |
| noted, the broker never confirmed                | 202, sent again, that run | 422          |
| expired, and the run is in the log               | see test_late_repeats.py  | 422          |
| expired, and the run never came to be            | 202, a new run            | 202          |
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from codeagent.eventlog.accept import Accepted, Submission, SubmissionLedger
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code

of_the_broker = pytest.mark.parametrize("durable", [False], indirect=True, ids=["broker"])


async def test_a_key_that_is_unused_orders_a_run(api: Api) -> None:
    first = await api.submit(await body(api))
    assert first.status_code == 202
    assert "idempotent-replayed" not in first.headers


async def test_a_key_that_was_accepted_names_that_run_and_no_other_request(api: Api) -> None:
    first = await api.submit(await body(api))
    again = await api.submit(await body(api))
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = await api.submit(await body(api, task="Something else."))
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")
    assert other.json()["retryable"] is False


@of_the_broker
async def test_a_key_that_this_edge_is_accepting_names_that_run(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed, sending = asyncio.Event(), asyncio.Event()
    send = api.publisher.send

    async def unconfirmed(*arguments: object) -> None:
        sending.set()
        await confirmed.wait()
        await send(*arguments)  # type: ignore[arg-type]  # whatever came

    monkeypatch.setattr(api.publisher, "send", unconfirmed)
    wanted = await body(api)
    first = asyncio.create_task(api.submit(wanted))
    await sending.wait()
    again = asyncio.create_task(api.submit(wanted))
    other = await api.submit(await body(api, task="Something else."))
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")
    confirmed.set()
    answers = await asyncio.gather(first, again)
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_key_that_another_edge_is_accepting_is_to_be_asked_for_again(api: Api) -> None:
    """Both looks of this edge fall between the other's insert and its commit, which takes two inserts here."""
    ledger = api.context.submissions
    look = ledger._accepts

    async def overtaken(submission: Submission) -> Accepted | None:
        async with api.database.transaction() as other:
            await other.execute(
                "INSERT INTO submissions (run_id, tenant_id, fingerprint, request) VALUES ($1, $2, 'f', '{}')",
                submission.run_id,
                submission.tenant_id,
            )
            mine = asyncio.create_task(look(submission))
            await waits_for_a_transaction(api)
        answer = await mine
        await api.database.write("DELETE FROM submissions WHERE run_id = $1", submission.run_id)
        return answer

    ledger._accepts = overtaken  # type: ignore[assignment]  # the same call, at bad moments
    wanted = await body(api)
    answer = await api.submit(wanted)
    assert (answer.status_code, code(answer)) == (409, "idempotency_in_progress")
    assert answer.json()["retryable"] is True
    ledger._accepts = look
    assert (await api.submit(wanted)).status_code == 202


async def waits_for_a_transaction(api: Api) -> None:
    async with asyncio.timeout(10):
        while not await api.database.fetch(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"
        ):
            await asyncio.sleep(0.01)


@of_the_broker
async def test_a_key_whose_command_was_never_confirmed_sends_it_again(api: Api) -> None:
    wanted = await body(api)
    await api.publisher.stop()
    assert (await api.submit(wanted)).status_code == 503
    other = await api.submit(await body(api, task="Something else."))
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")
    await api.publisher.start()
    again = await api.submit(wanted)
    assert again.status_code == 202
    assert "idempotent-replayed" not in again.headers


@of_the_broker
@pytest.mark.parametrize("task", ["Do it.", "Something else."], ids=["the same body", "another body"])
async def test_a_key_that_expired_without_a_run_is_unused(api: Api, task: str) -> None:
    await api.publisher.stop()
    assert (await api.submit(await body(api))).status_code == 503
    assert await SubmissionLedger(api.database).forget(timedelta(0), 10) == 1
    await api.publisher.start()
    again = await api.submit(await body(api, task=task))
    assert (again.status_code, again.json()["task"]) == (202, task)
    assert "idempotent-replayed" not in again.headers


async def test_a_key_that_cannot_be_is_refused(api: Api) -> None:
    wanted = await body(api)
    for key, expected in (
        (None, "idempotency_key_missing"),
        ("", "idempotency_key_missing"),
        ('""', "idempotency_key_malformed"),
        ("x" * 256, "idempotency_key_malformed"),
        ("a\tb", "idempotency_key_malformed"),
    ):
        refused = await api.submit(wanted, key)
        assert (refused.status_code, code(refused)) == (400, expected), key
