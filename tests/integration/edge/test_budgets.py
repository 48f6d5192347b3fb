"""Budgets and usage over HTTP: kept like any resource, and runs are held to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages import events
from codeagent.messages.ids import budget_stream
from codeagent.projections.usage import UsageProjector
from tests.integration.edge.gateway import MINE, Edge, Keys, running_edge
from tests.integration.projections.logs import Happened, call, new_run_id, submitted, write

MONTHLY = {"name": "all of it", "period": "month", "unit": "usd", "limit": "10.00"}
TODAY = clock.now().astimezone(UTC).date()


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    database = Database(newest_database_url, connections=2)
    yield database
    await database.close()


async def post(edge: Edge, body: dict[str, Any], repeat: str = "k1", key: str | None = None) -> httpx2.Response:
    headers = {"Idempotency-Key": repeat}
    return await edge.call(key or edge.keys.owner, "POST", "/v1/budgets", json=body, headers=headers)


async def made(edge: Edge, **changes: Any) -> dict[str, Any]:
    answer = await post(edge, {**MONTHLY, **changes}, str(clock.new_uuid()))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def standing(edge: Edge, budget_id: str) -> tuple[str, str, str]:
    found = (await edge.call(edge.keys.owner, "GET", f"/v1/budgets/{budget_id}")).json()
    return found["spent"], found["reserved"], found["remaining"]


async def run_that_spent(
    owner: Database,
    usd: str,
    *,
    principal: str = "usr_owner",
    limit: str | None = None,
    ended: bool = True,
    day: date = TODAY,
) -> str:
    """A run in the log and in the projection."""
    run_id = new_run_id()
    log = [
        Happened(run_id, submitted(run_id, principal, "m", None if limit is None else Decimal(limit)), day, MINE),
        Happened(run_id, call(run_id, "m", cost=usd), day, MINE),
    ]
    await write(owner, [*log, Happened(run_id, events.RunCompleted(), day, MINE)] if ended else log)
    projector = UsageProjector(owner, EventLog(owner))
    async with asyncio.timeout(20):
        while not await owner.fetch("SELECT FROM usage_runs WHERE run_id = $1 AND open <> $2", run_id, ended):
            if not await projector.catch_up():
                await asyncio.sleep(0.005)
    return run_id


class Submitter:
    """Submits runs with a source that is there."""

    def __init__(self, edge: Edge, digest: str) -> None:
        self._edge = edge
        self._digest = digest

    async def __call__(self, repeat: str | None = None, key: str | None = None, **limits: Any) -> httpx2.Response:
        body = {"task": "t", "source": {"kind": "archive", "digest": self._digest}, "limits": limits}
        headers = {"Idempotency-Key": repeat or str(clock.new_uuid())}
        return await self._edge.call(key or self._edge.keys.owner, "POST", "/v1/runs", json=body, headers=headers)


@pytest.fixture
async def submit(edge: Edge, tmp_path: Path) -> Submitter:
    return Submitter(edge, await LocalArtifactStore(tmp_path / "artifacts").put(MINE, b"source"))


async def test_a_budget_is_made_shown_changed_and_deleted_each_as_a_fact(edge: Edge, owner: Database) -> None:
    await run_that_spent(owner, "2.5")
    answer = await post(edge, MONTHLY)
    budget = answer.json()
    path = answer.headers["location"]
    assert (answer.status_code, answer.headers["etag"], path) == (201, '"1"', f"/v1/budgets/{budget['id']}")
    assert (budget["limit"], budget["spent"], budget["remaining"]) == ("10.00", "2.5", "7.50")
    assert (budget["scope"], budget["action"]) == ("tenant", "refuse")
    assert (await edge.call(edge.keys.owner, "GET", path)).json() == budget
    assert (await edge.call(edge.keys.owner, "GET", "/v1/budgets")).json() == {"items": [budget], "next_cursor": None}
    headers = {"If-Match": '"1"'}
    changed = await edge.call(edge.keys.owner, "PATCH", path, json={"limit": "4", "action": "warn"}, headers=headers)
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert (changed.json()["limit"], changed.json()["remaining"], changed.json()["name"]) == ("4", "1.5", "all of it")
    nothing = await edge.call(edge.keys.owner, "PATCH", path, json={}, headers={"If-Match": '"2"'})
    assert (nothing.status_code, nothing.headers["etag"]) == (200, '"2"')
    stale = await edge.call(edge.keys.owner, "DELETE", path, headers=headers)
    assert (stale.status_code, stale.json()["code"]) == (412, "version_mismatch")
    assert (await edge.call(edge.keys.owner, "DELETE", path)).status_code == 428
    assert (await edge.call(edge.keys.owner, "DELETE", path, headers={"If-Match": '"2"'})).status_code == 204
    assert (await edge.call(edge.keys.owner, "GET", path)).status_code == 404
    facts = await EventLog(owner).read_stream(budget_stream(budget["id"]))
    assert [fact.type for fact in facts] == ["budget.created", "budget.changed", "budget.deleted"]
    assert {(fact.tenant_id, fact.metadata["authid"]) for fact in facts} == {(MINE, "usr_owner")}


async def test_a_repeat_makes_no_second_budget(edge: Edge) -> None:
    answers = await asyncio.gather(*(post(edge, MONTHLY) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await post(edge, {**MONTHLY, "limit": "11"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    path = answers[0].headers["location"]
    await edge.call(edge.keys.owner, "DELETE", path, headers={"If-Match": "*"})
    assert (await post(edge, MONTHLY)).status_code == 409, "what it made is gone, and is not made again"


@pytest.mark.parametrize(
    "change",
    [
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "NaN"},
        {"limit": "1e30"},
        {"unit": "tokens", "limit": "1.5"},
        {"scope": "principal"},
        {"scope_id": "usr_1"},
        {"period": "year"},
        {"name": ""},
        {"spent": "0"},
    ],
)
async def test_a_malformed_budget_is_refused(edge: Edge, change: dict[str, Any]) -> None:
    answer = await post(edge, {**MONTHLY, **change})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


async def test_those_who_may_read_usage_do_not_change_budgets(edge: Edge) -> None:
    budget = await made(edge)
    assert (await edge.call(edge.keys.developer, "GET", f"/v1/budgets/{budget['id']}")).status_code == 200
    assert (await post(edge, MONTHLY, key=edge.keys.developer)).status_code == 403


async def test_pages_of_budgets_follow_each_other(edge: Edge) -> None:
    ids = [(await made(edge))["id"] for _ in range(3)]
    first = await edge.call(edge.keys.owner, "GET", "/v1/budgets?limit=2")
    link = first.headers["link"].split(">")[0][1:]
    rest = await edge.call(edge.keys.owner, "GET", link)
    assert [item["id"] for page in (first, rest) for item in page.json()["items"]] == ids[::-1]
    assert (await edge.call(edge.keys.owner, "GET", "/v1/budgets?cursor=x")).json()["code"] == "malformed_cursor"


async def test_once_it_is_spent_new_runs_are_refused_and_repeats_are_answered(
    edge: Edge, owner: Database, submit: Submitter
) -> None:
    budget = await made(edge)
    await run_that_spent(owner, "9")
    accepted = await submit("first")
    assert accepted.status_code == 202
    await run_that_spent(owner, "1")
    refused = await submit()
    assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (
        403,
        "budget_exhausted",
        False,
    )
    assert budget["id"] in refused.json()["detail"]
    repeated = await submit("first")
    assert (repeated.status_code, repeated.json()["id"]) == (202, accepted.json()["id"])
    path = f"/v1/budgets/{budget['id']}"
    await edge.call(edge.keys.owner, "PATCH", path, json={"limit": "20"}, headers={"If-Match": "*"})
    assert (await submit()).status_code == 202, "with another limit at once"
    await edge.call(edge.keys.owner, "PATCH", path, json={"limit": "5", "action": "warn"}, headers={"If-Match": "*"})
    assert (await submit()).status_code == 202, "one that warns refuses nothing"


async def test_what_open_runs_may_still_spend_is_reserved(edge: Edge, owner: Database, submit: Submitter) -> None:
    budget = await made(edge)
    await run_that_spent(owner, "1", limit="6", ended=False)
    assert await standing(edge, budget["id"]) == ("1", "5", "4.00")
    assert (await submit(max_cost_usd="4.01")).status_code == 403
    assert (await submit(max_cost_usd="4")).status_code == 202
    await run_that_spent(owner, "1", limit="6", ended=True)
    assert await standing(edge, budget["id"]) == ("2", "5", "3.00"), "what an ended run did not need is free"


async def test_a_principals_budget_and_a_days_budget_concern_nobody_and_no_day_else(
    edge: Edge, owner: Database, submit: Submitter
) -> None:
    await made(edge, scope="principal", scope_id="usr_developer", period="day", unit="tokens", limit="110")
    await run_that_spent(owner, "0", principal="usr_owner")
    await run_that_spent(owner, "0", principal="usr_developer", day=TODAY - timedelta(days=1))
    assert (await submit(key=edge.keys.developer)).status_code == 202
    await run_that_spent(owner, "0", principal="usr_developer")
    assert (await submit(key=edge.keys.developer)).status_code == 403
    assert (await submit()).status_code == 202


async def test_a_tenant_without_budgets_costs_no_query_a_run(edge: Edge, submit: Submitter) -> None:
    for _ in range(3):
        await submit()
    assert sum("FROM budgets" in query for query in edge.database.queries) == 1


async def test_a_budget_made_on_another_edge_holds_here_before_long(
    edge: Edge, newest_database_url: str, tmp_path: Path, file_keys: Keys, owner: Database, submit: Submitter
) -> None:
    await run_that_spent(owner, "10")
    assert (await submit()).status_code == 202, "there is none yet, and that is remembered"
    async with running_edge(newest_database_url, tmp_path, file_keys) as other:
        await made(other)
    async with asyncio.timeout(15):
        while (await submit()).status_code != 403:
            await asyncio.sleep(0.1)


async def test_usage_is_told_by_day_or_by_what_is_asked_for(edge: Edge, owner: Database) -> None:
    run_id = await run_that_spent(owner, "2.5")
    answer = await edge.call(edge.keys.developer, "GET", "/v1/usage")
    page = answer.json()
    assert (page["to"], page["from"]) == (TODAY.isoformat(), (TODAY - timedelta(days=29)).isoformat())
    assert [(item["day"], item["cost_usd"], item["model"]) for item in page["items"]] == [
        (TODAY.isoformat(), "2.5", None)
    ]
    assert page["totals"]["runs"]["completed"] == 1
    grouped = await edge.call(edge.keys.developer, "GET", "/v1/usage?group_by=principal&group_by=project&model=m")
    assert [(item["principal_id"], item["project_id"]) for item in grouped.json()["items"]] == [("usr_owner", None)]
    one = (await edge.call(edge.keys.developer, "GET", f"/v1/runs/{run_id}/usage")).json()
    assert (one["settled"], one["totals"]["cost_usd"], one["items"][0]["model"]) == (True, "2.5", "m")
    stranger = (await edge.call(edge.keys.stranger, "GET", "/v1/usage")).json()
    assert (stranger["items"], stranger["totals"]["calls"]) == ([], 0)


async def test_a_list_of_usage_is_continued_by_its_link(edge: Edge, owner: Database) -> None:
    for back in range(3):
        await run_that_spent(owner, "1", day=TODAY - timedelta(days=back))
    first = await edge.call(edge.keys.owner, "GET", "/v1/usage?group_by=day&group_by=model&limit=2")
    rest = await edge.call(edge.keys.owner, "GET", first.headers["link"].split(">")[0][1:])
    days = [item["day"] for page in (first, rest) for item in page.json()["items"]]
    assert days == [(TODAY - timedelta(days=back)).isoformat() for back in (2, 1, 0)]
    assert "link" not in rest.headers


@pytest.mark.parametrize(
    "query",
    ["from=2026-01-02&to=2026-01-01", "from=2020-01-01&to=2026-01-01", "from=yesterday", "to=0001-01-01", "group_by=x",
     "group_by=day&group_by=day&group_by=day&group_by=day", "limit=201", "principal_id=%00", "form=2026-01-01"],
)  # fmt: skip
async def test_a_malformed_question_about_usage_is_refused(edge: Edge, query: str) -> None:
    answer = await edge.call(edge.keys.owner, "GET", f"/v1/usage?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
