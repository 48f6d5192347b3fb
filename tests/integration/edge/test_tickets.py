"""Stream tickets: one stream, one minute, one use on all edges together, and nothing beyond their owner's credential."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from codeagent.eventlog.database import Database
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.principal import Principal
from codeagent.identity.tickets import StreamTickets
from codeagent.messages.events import RunCompleted
from tests.integration.edge.served import ServedEdge
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step

STREAM = {"Accept": "text/event-stream"}


async def ended_run(database: Database) -> str:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started(), RunCompleted()]))
    return run_id


async def follow(edge: ServedEdge, run_id: str, ticket: str) -> httpx2.Response:
    async with edge.http(None) as http:
        return await http.get(f"/v1/runs/{run_id}/events", params={"ticket": ticket}, headers=STREAM)


async def test_a_ticket_opens_a_stream_without_any_header(edge: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    answer = await follow(edge, run_id, await edge.ticket(run_id))
    assert answer.status_code == 200
    assert "event: run.completed\r\n" in answer.text


async def test_a_second_use_is_refused_also_on_another_edge(
    edge: ServedEdge, other_edge: ServedEdge, writer: Database
) -> None:
    run_id = await ended_run(writer)
    ticket = await edge.ticket()
    assert (await follow(edge, run_id, ticket)).status_code == 200
    for again in (other_edge, edge):
        refused = await follow(again, run_id, ticket)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    ticket = await edge.ticket()
    answers = await asyncio.gather(*(follow(each, run_id, ticket) for each in [edge, other_edge] * 5))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 9


async def test_a_ticket_that_is_too_old_is_refused(writer: Database, module_database_url: str) -> None:
    walled = Database(module_database_url, role=EDGE_ROLE)
    brief, principal = StreamTickets(walled, lifetime_seconds=0.0), Principal(TENANT, "usr_t", "key_t")
    issued = await brief.issue(principal, None)
    assert await StreamTickets(walled).redeem(issued.ticket) is None
    fresh = await StreamTickets(walled).issue(principal, None)
    for _ in range(3):
        await brief.issue(principal, None)
    [row] = await writer.fetch("SELECT count(*) FROM stream_tickets WHERE expires_at < clock_timestamp()")
    assert row["count"] == 1, "old ones are removed by the next"
    redeemed = await StreamTickets(walled).redeem(fresh.ticket)
    assert redeemed is not None
    assert redeemed.principal == principal
    await walled.close()


async def test_a_ticket_of_one_run_opens_no_other_stream(edge: ServedEdge, writer: Database) -> None:
    run_id, another = await ended_run(writer), await ended_run(writer)
    refused = await follow(edge, another, await edge.ticket(run_id))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    async with edge.http(None) as http:
        refused = await http.get("/v1/events", params={"ticket": await edge.ticket(run_id)}, headers=STREAM)
    assert refused.status_code == 403


async def test_a_ticket_opens_nothing_but_streams(edge: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    ticket = await edge.ticket()
    async with edge.http(None) as http:
        assert (await http.get(f"/v1/runs/{run_id}/events", params={"ticket": ticket})).status_code == 401
        assert (await http.get("/v1/runs", headers={"Authorization": f"Bearer {ticket}"})).status_code == 401
    assert (await follow(edge, run_id, ticket)).status_code == 200


async def test_a_ticket_ends_with_the_credential_that_it_was_made_with(edge: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    ticket = await edge.ticket()
    edge.revoke("mine")
    assert (await follow(edge, run_id, ticket)).status_code == 401


@pytest.mark.parametrize("ticket", ["", "cst_", "cst_" + "x" * 43, "cst_" + "x" * 44, "\x00", "cak_" + "x" * 36])
async def test_what_is_no_ticket_is_refused(edge: ServedEdge, ticket: str) -> None:
    refused = await follow(edge, new_run(), ticket)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")


async def test_a_ticket_for_another_tenants_run_is_not_made(edge: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    async with edge.http("theirs") as http:
        refused = await http.post("/v1/stream-tickets", json={"run_id": run_id})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    async with edge.http("narrow") as http:
        assert (await http.post("/v1/stream-tickets")).json()["code"] == "insufficient_scope"
