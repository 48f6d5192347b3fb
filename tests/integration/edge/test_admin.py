"""The whole installation over HTTP: for operators, and for nobody who is of a tenant, whatever their role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from codeagent import __version__, clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.migrations import HEAD
from codeagent.identity.api_keys import KeyOrder
from codeagent.identity.scopes import ALL, SCOPES_OF, Scope
from codeagent.messages.ids import tenant_stream, typed_id
from codeagent.projections.usage import UsageProjector
from tests.integration.edge.gateway import MINE, OTHERS, Edge
from tests.integration.eventlog.steps import commit_step, model_call, new_run, started, step

GETS = ("tenants", f"tenants/{MINE}", "projections", "backlog", "installation")


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    database = Database(newest_database_url, connections=2)
    for tenant in (MINE, OTHERS, "ten_third"):
        await database.write("INSERT INTO tenants (id, version, name) VALUES ($1, 1, 'T')", tenant)
        await database.write(
            """INSERT INTO events (stream_id, stream_version, event_id, event_type, schema_version, tenant_id, data,
                                   data_digest, metadata, occurred_at, leaf_hash)
               VALUES ('tenant-' || $1, 1, gen_random_uuid(), 'tenant.created', 1, $1, '{}', sha256('{}'), '{}', now(),
                       sha256('x'))""",
            tenant,
        )
    yield database
    await database.close()


async def get(edge: Edge, path: str) -> Any:
    answer = await edge.call(edge.keys.operator, "GET", f"/v1/admin/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_no_role_and_no_key_of_a_tenant_is_an_operators(edge: Edge, owner: Database) -> None:
    assert all(Scope.OPERATOR not in scopes for scopes in (ALL, *SCOPES_OF.values()))
    for path in GETS:
        answer = await edge.call(edge.keys.owner, "GET", f"/v1/admin/{path}")
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), path
    answer = await edge.call(edge.keys.owner, "POST", f"/v1/admin/tenants/{OTHERS}/suspend")
    assert answer.status_code == 403
    for maker in (edge.keys.owner, edge.keys.operator):
        body = {"name": "x", "scopes": ["operator"]}
        headers = {"Idempotency-Key": "k"}
        for path in ("/v1/api-keys", "/v1/service-accounts"):
            made = await edge.call(maker, "POST", path, json=body, headers=headers)
            assert made.status_code in {403, 422}, path


async def test_a_stored_key_is_no_operators_whatever_its_row_says(edge: Edge, owner: Database) -> None:
    author = Author(MINE, "app_user", "usr_owner", clock.new_uuid())
    order = KeyOrder(
        typed_id("key", clock.new_uuid()), "usr_owner", "forged", frozenset({Scope.OPERATOR, Scope.RUNS_READ})
    )
    made = await edge.identity.keys.create(author, order)
    assert made.secret is not None
    assert await edge.accepts(made.secret)
    answer = await edge.call(made.secret, "GET", "/v1/admin/tenants")
    assert answer.status_code == 403


async def test_an_operator_is_of_no_tenant_and_reads_none_of_its_things(edge: Edge) -> None:
    for path in ("/v1/runs", "/v1/usage", "/v1/members", "/v1/api-keys"):
        assert (await edge.call(edge.keys.operator, "GET", path)).status_code == 403, path


async def test_tenants_are_listed_and_looked_at(edge: Edge, owner: Database) -> None:
    first = await edge.call(edge.keys.operator, "GET", "/v1/admin/tenants?limit=2")
    rest = await edge.call(edge.keys.operator, "GET", first.headers["link"].split(">")[0][1:])
    ids = [item["id"] for page in (first, rest) for item in page.json()["items"]]
    assert ids == sorted((MINE, OTHERS, "ten_third"))
    assert (await get(edge, f"tenants/{MINE}"))["suspended_at"] is None
    unknown = await edge.call(edge.keys.operator, "GET", "/v1/admin/tenants/ten_none")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


async def test_a_suspended_tenant_is_out_until_it_is_resumed_and_each_act_is_a_fact(
    edge: Edge, owner: Database
) -> None:
    key = (await edge.make_key(edge.keys.stranger))["key"]
    assert await edge.accepts(key)
    path = f"/v1/admin/tenants/{OTHERS}"
    for _ in range(2):
        answer = await edge.call(edge.keys.operator, "POST", f"{path}/suspend")
        assert (answer.status_code, answer.json()["suspended_at"] is None) == (200, False)
    async with asyncio.timeout(5):
        while await edge.accepts(key):
            await asyncio.sleep(0.02)
    assert (await get(edge, f"tenants/{MINE}"))["suspended_at"] is None
    for _ in range(2):
        answer = await edge.call(edge.keys.operator, "POST", f"{path}/resume")
        assert (answer.status_code, answer.json()["suspended_at"]) == (200, None)
    facts = (await EventLog(owner).read_stream(tenant_stream(OTHERS)))[1:]
    assert [fact.type for fact in facts] == ["tenant.suspended", "tenant.resumed"]
    assert {(fact.tenant_id, fact.metadata["authid"]) for fact in facts} == {(OTHERS, "usr_operator")}


async def test_it_tells_how_far_read_models_are(edge: Edge, owner: Database) -> None:
    async def behind() -> float | None:
        items = {item["name"]: item["behind_seconds"] for item in (await get(edge, "projections"))["items"]}
        return items.get("usage")

    assert await behind() is None, "it has not begun"
    projector = UsageProjector(owner, EventLog(owner))
    async with asyncio.timeout(20):
        while await behind() != 0:
            await projector.catch_up()
    await commit_step(owner, step(new_run(), 0, [started()]))
    assert (await behind() or 0) > 0


async def test_it_tells_what_waits_in_the_ledgers(edge: Edge, owner: Database) -> None:
    for tenant in (MINE, OTHERS):
        run_id = new_run()
        await commit_step(owner, step(run_id, 0, [started()], effects=[model_call(run_id)], tenant=tenant))
    items = (await get(edge, "backlog"))["items"]
    counts = {(item["ledger"], item["kind"]): item["waiting"] for item in items}
    assert counts == {("effects", "provider"): 2, ("outbox", "codeagent.run.events.v1"): 2}
    assert all(item["oldest_seconds"] >= 0 for item in items)


async def test_it_tells_what_is_running(edge: Edge) -> None:
    found = await get(edge, "installation")
    assert found == {"version": __version__, "migration": HEAD, "expected_migration": HEAD, "current": True}


async def test_limits_are_told_with_what_is_left_of_them(edge: Edge) -> None:
    async def rates() -> dict[tuple[str, str], Any]:
        found = (await edge.call(edge.keys.owner, "GET", "/v1/quotas")).json()["rates"]
        return {(each["name"], each["scope"]): each for each in found}

    first = await rates()
    assert {name for name, _ in first} >= {"submit", "write", "read"}
    await edge.call(edge.keys.developer, "GET", "/v1/runs")
    second = await rates()
    read, every = ("read", "credential"), ("read-tenant", "tenant")
    assert first[read]["remaining"] - second[read]["remaining"] == 1, "this look itself; others' are not one's own"
    assert first[every]["remaining"] - second[every]["remaining"] == 2
    assert first[read]["requests"] == 12_000
    assert second["submit", "credential"]["remaining"] == 600
    at_once = (await edge.call(edge.keys.owner, "GET", "/v1/quotas")).json()["concurrency"]
    assert {each["name"]: each["in_use"] for each in at_once} == {"requests-at-once": 1, "streams": 0}
