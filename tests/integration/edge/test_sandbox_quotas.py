"""Quotas and limits of sandboxes over HTTP: set by operators, shown to tenants, and runs are held to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.ids import sandbox_quota_stream
from codeagent.projections.usage import UsageProjector
from tests.integration.edge.gateway import MINE, OTHERS, Edge
from tests.integration.edge.test_budgets import Submitter
from tests.integration.opened import ordered
from tests.integration.projections.logs import new_run_id, write
from tests.integration.quotas.test_reservations import of_today

PATH = f"/v1/admin/tenants/{MINE}/sandbox-quota"
NOTHING = {"concurrent_sandboxes": None, "cpu_seconds_per_day": None, "gib_hours_per_day": None}


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    database = Database(newest_database_url, connections=2)
    for tenant in (MINE, OTHERS):
        await database.write("INSERT INTO tenants (id, version, name) VALUES ($1, 1, 'T')", tenant)
    yield database
    await database.close()


@pytest.fixture
async def submit(edge: Edge, tmp_path: Path) -> Submitter:
    return Submitter(edge, await LocalArtifactStore(tmp_path / "artifacts").put(MINE, b"source"))


async def put(edge: Edge, version: int | str, **quota: Any) -> httpx2.Response:
    headers = {"If-Match": f'"{version}"'}
    return await edge.call(edge.keys.operator, "PUT", PATH, json=quota, headers=headers)


async def used(owner: Database, seconds: float) -> None:
    """A command of ours that ran so long, counted."""
    happened = of_today(new_run_id(), clock.new_uuid(), seconds)
    await write(owner, [type(happened)(happened.run_id, happened.event, happened.day, MINE)])
    projector = UsageProjector(owner, EventLog(owner))
    async with asyncio.timeout(20):
        while not await projector.catch_up():
            await asyncio.sleep(0.005)


async def test_operators_set_a_tenants_quota_each_time_as_a_fact(edge: Edge, owner: Database) -> None:
    before = await edge.call(edge.keys.operator, "GET", PATH)
    assert (before.headers["etag"], before.json()["version"]) == ('"0"', 0)
    assert {name: before.json()[name] for name in NOTHING} == NOTHING
    made = await put(edge, 0, concurrent_sandboxes=4, gib_hours_per_day="2.5")
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    assert (made.json()["concurrent_sandboxes"], made.json()["gib_hours_per_day"]) == (4, "2.5")
    changed = await put(edge, 1, cpu_seconds_per_day=100)
    assert changed.json()["concurrent_sandboxes"] is None, "it is set as a whole"
    assert (await put(edge, 1, cpu_seconds_per_day=5)).status_code == 412
    assert (await put(edge, 0, cpu_seconds_per_day=5)).status_code == 412
    assert (await edge.call(edge.keys.operator, "PUT", PATH, json={})).status_code == 428
    facts = await EventLog(owner).read_stream(sandbox_quota_stream(MINE))
    assert [(fact.type, fact.tenant_id) for fact in facts] == [("tenant.sandbox_quota_set", MINE)] * 2
    assert {fact.metadata["authid"] for fact in facts} == {"usr_operator"}


@pytest.mark.parametrize("quota", [{"concurrent_sandboxes": 0}, {"cpu_seconds_per_day": True}, {"more": 1}])
async def test_what_is_no_quota_is_refused(edge: Edge, owner: Database, quota: dict[str, Any]) -> None:
    assert (await put(edge, 0, **quota)).status_code == 422


async def test_no_tenant_sets_its_own_and_none_sees_anothers(edge: Edge, owner: Database) -> None:
    for method in ("GET", "PUT"):
        answer = await edge.call(edge.keys.owner, method, PATH, json={}, headers={"If-Match": '"0"'})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    await put(edge, 0, cpu_seconds_per_day=100)
    await used(owner, 30)
    mine = (await edge.call(edge.keys.owner, "GET", "/v1/quotas")).json()["sandboxes"]
    assert (mine["cpu_seconds_per_day"], mine["cpu_seconds_used"]) == (100, 30.0)
    theirs = (await edge.call(edge.keys.stranger, "GET", "/v1/quotas")).json()["sandboxes"]
    assert (theirs["cpu_seconds_per_day"], theirs["cpu_seconds_used"]) == (None, 0.0)


async def test_once_the_day_is_used_up_new_runs_are_refused_and_repeats_are_answered(
    edge: Edge, owner: Database, submit: Submitter
) -> None:
    await put(edge, 0, cpu_seconds_per_day=100)
    await used(owner, 99)
    assert (await submit("k1")).status_code == 202
    await used(owner, 1)
    refused = await submit("k2")
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert "begin anew at" in refused.json()["detail"]
    assert (await submit("k1")).status_code == 202, "it was accepted before"
    await put(edge, 1, cpu_seconds_per_day=1_000)
    assert (await submit("k2")).status_code == 202


async def test_a_tenant_far_from_its_quota_costs_a_run_no_query(edge: Edge, owner: Database, submit: Submitter) -> None:
    await put(edge, 0, cpu_seconds_per_day=100)
    await used(owner, 10)
    assert (await submit()).status_code == 202
    edge.database.queries.clear()
    for _ in range(5):
        assert (await submit()).status_code == 202
    assert [query for query in edge.database.queries if "sandbox_quotas" in query] == []


async def test_usage_shows_what_commands_used(edge: Edge, owner: Database) -> None:
    await used(owner, 36)
    totals = (await edge.call(edge.keys.owner, "GET", "/v1/usage")).json()["totals"]
    shown = {name: totals[name] for name in ("commands", "sandbox_seconds", "cpu_seconds", "gib_hours")}
    assert shown == {"commands": 1, "sandbox_seconds": 36.0, "cpu_seconds": 36.0, "gib_hours": 0.01}


async def test_a_run_asks_for_limits_within_what_the_operator_allows(
    edge: Edge, owner: Database, submit: Submitter
) -> None:
    answer = await submit(sandbox={"memory_bytes": 1 << 29, "total_commands": 10})
    assert answer.status_code == 202, answer.text
    limits = (await ordered(owner, answer.json()["id"])).limits.sandbox
    assert limits is not None
    assert limits.model_dump(exclude_none=True) == {"memory_bytes": 536870912, "total_commands": 10}
    for limits, code, pointer in (
        ({"memory_bytes": 1 << 31}, "limit_exceeded", "/limits/sandbox/memory_bytes"),
        ({"memory": 1}, "validation_failed", "/limits/sandbox/memory"),
        ({"processes": True}, "validation_failed", "/limits/sandbox/processes"),
    ):
        refused = await submit(sandbox=limits)
        assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
