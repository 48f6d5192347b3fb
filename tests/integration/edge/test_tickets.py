"""Stream tickets: one stream, one minute, one use on all edges together, and nothing beyond their owner's credential."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

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


async def follow(served: ServedEdge, run_id: str, ticket: str) -> httpx2.Response:
    async with served.http(None) as http:
        return await http.get(f"/v1/runs/{run_id}/events", params={"ticket": ticket}, headers=STREAM)


async def test_a_ticket_opens_a_stream_without_any_header(served: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    answer = await follow(served, run_id, await served.ticket(run_id))
    assert answer.status_code == 200
    assert "event: run.completed\r\n" in answer.text


async def test_a_second_use_is_refused_also_on_another_edge(
    served: ServedEdge, other_edge: ServedEdge, writer: Database
) -> None:
    run_id = await ended_run(writer)
    ticket = await served.ticket()
    assert (await follow(served, run_id, ticket)).status_code == 200
    for again in (other_edge, served):
        refused = await follow(again, run_id, ticket)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    ticket = await served.ticket()
    answers = await asyncio.gather(*(follow(each, run_id, ticket) for each in [served, other_edge] * 5))
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


async def test_a_ticket_of_one_run_opens_no_other_stream(served: ServedEdge, writer: Database) -> None:
    run_id, another = await ended_run(writer), await ended_run(writer)
    refused = await follow(served, another, await served.ticket(run_id))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    async with served.http(None) as http:
        refused = await http.get("/v1/events", params={"ticket": await served.ticket(run_id)}, headers=STREAM)
    assert refused.status_code == 403


async def test_a_ticket_opens_nothing_but_streams(served: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    ticket = await served.ticket()
    async with served.http(None) as http:
        assert (await http.get(f"/v1/runs/{run_id}/events", params={"ticket": ticket})).status_code == 401
        assert (await http.get("/v1/runs", headers={"Authorization": f"Bearer {ticket}"})).status_code == 401
    assert (await follow(served, run_id, ticket)).status_code == 200


async def test_a_ticket_ends_with_the_credential_that_it_was_made_with(served: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    ticket = await served.ticket()
    served.revoke("mine")
    assert (await follow(served, run_id, ticket)).status_code == 401


async def test_a_ticket_is_held_to_the_networks_of_its_credential(
    served: ServedEdge, writer: Database, module_database_url: str
) -> None:
    run_id, walled = await ended_run(writer), Database(module_database_url, role=EDGE_ROLE)
    elsewhere = Principal(TENANT, "usr_t", "key_t", networks=(ip_network("192.0.2.0/24"),))
    issued = await StreamTickets(walled).issue(elsewhere, None)
    await walled.close()
    refused = await follow(served, run_id, issued.ticket)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("ticket", ["", "cst_", "cst_" + "x" * 43, "cst_" + "x" * 44, "\x00", "cak_" + "x" * 36])
async def test_what_is_no_ticket_is_refused(served: ServedEdge, ticket: str) -> None:
    refused = await follow(served, new_run(), ticket)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")


async def test_a_ticket_for_another_tenants_run_is_not_made(served: ServedEdge, writer: Database) -> None:
    run_id = await ended_run(writer)
    async with served.http("theirs") as http:
        refused = await http.post("/v1/stream-tickets", json={"run_id": run_id})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    async with served.http("narrow") as http:
        assert (await http.post("/v1/stream-tickets")).json()["code"] == "insufficient_scope"
