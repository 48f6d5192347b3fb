"""The second wall: under the edge's role the database itself shows a tenant nothing but its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from codeagent.messages.ids import run_stream
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step

OTHER = "ten_other"


@pytest.fixture
async def walled(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, connections=2, role=EDGE_ROLE)
    yield database
    await database.close()


async def two_tenants(database: Database) -> tuple[str, str]:
    mine, theirs = new_run(), new_run()
    await commit_step(database, step(mine, 0, [started(), started()]))
    await commit_step(database, replace(step(theirs, 0, [started()]), tenant_id=OTHER))
    return mine, theirs


async def test_a_query_sees_the_rows_of_the_tenant_it_names_and_without_one_none(
    database: Database, walled: Database
) -> None:
    await two_tenants(database)
    count = "SELECT count(*) FROM events"
    for tenant, expected in ((TENANT, 2), (OTHER, 1), ("ten_nobody", 0), ("", 0), (TENANT, 2)):
        [row] = await walled.fetch(count, tenant=tenant)
        assert row[0] == expected
    seen = await asyncio.gather(*(walled.fetch(count, tenant=(TENANT, OTHER)[n % 2]) for n in range(40)))
    assert [rows[0][0] for rows in seen] == [2, 1] * 20


async def test_another_tenants_stream_is_empty_also_where_reads_share_a_statement(
    database: Database, walled: Database
) -> None:
    mine, theirs = await two_tenants(database)
    log = TenantLog(walled)
    wanted = [(TENANT, mine), (TENANT, theirs), (OTHER, theirs), (OTHER, mine)]
    found = await asyncio.gather(*(log.read_stream(tenant, run_stream(run_id)) for tenant, run_id in wanted))
    assert [len(events) for events in found] == [2, 0, 1, 0]
    assert await log.heads([run_stream(mine), run_stream(theirs), "run-none"]) == {
        run_stream(mine): 2,
        run_stream(theirs): 1,
        "run-none": 0,
    }


async def test_a_tenants_feed_holds_its_own_events_in_order(database: Database, walled: Database) -> None:
    await two_tenants(database)
    log = TenantLog(walled)
    first = await log.feed(TENANT, Cursor(), 1)
    rest = await log.feed(TENANT, first.cursor)
    assert [event.version for event in (*first.events, *rest.events)] == [1, 2]
    assert {event.tenant_id for event in (*first.events, *rest.events)} == {TENANT}
    assert (first.more, rest.more) == (True, False)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FROM effects",
        "DELETE FROM events",
        "UPDATE events SET tenant_id = 'ten_test'",
        "INSERT INTO submissions (run_id, tenant_id, fingerprint, request) VALUES ('r', 'ten_test', 'f', '{}')",
        "INSERT INTO outbox (id, topic, key, tenant_id, value, due_at) "
        "VALUES (gen_random_uuid(), 't', 'k', 'ten_other', '', now())",
        "TRUNCATE events",
        "SELECT value FROM outbox",
        "SELECT digest FROM api_keys",
        "UPDATE api_keys SET scopes = '{admin}'",
        "DELETE FROM api_keys",
        "SELECT 1 FROM revocations",
        "INSERT INTO revocations (tenant_id, kind, id, expires_at) VALUES ('ten_other', 'jti', 'j', now())",
        "SELECT 1 FROM stream_tickets",
        "SELECT token_sealed FROM git_credentials",
        "UPDATE git_credentials SET repository = 'https://elsewhere.example'",
        "UPDATE projects SET tenant_id = 'ten_other'",
        "DELETE FROM projects",
        "INSERT INTO placements (run_id, tenant_id, project_id) VALUES ('r', 'ten_test', 'p')",
        "SELECT run_progress_v1('r')",
        "SELECT issue_stream_ticket_v1(sha256('t'), '{\"tenant_id\": \"ten_other\"}', NULL, 60)",
        "UPDATE agents SET name = 'other'",
        "UPDATE agent_versions SET instructions = 'other'",
        "DELETE FROM agent_versions",
        "INSERT INTO agents (id, tenant_id, version, name, description, fingerprint, created_by) "
        "VALUES ('a', 'ten_other', 1, 'n', '', '', '')",
        "INSERT INTO audit_events SELECT * FROM audit_events",
        "DELETE FROM audit_events",
        "UPDATE fact_origins SET address = '192.0.2.1'",
        "INSERT INTO fact_origins (event_id, tenant_id, address) VALUES (gen_random_uuid(), 'ten_other', '192.0.2.1')",
        "UPDATE usage_by_day SET cost_usd = 0",
        "UPDATE usage_runs SET open = false",
        "UPDATE session_totals SET cost_usd = 0",
        "SELECT 1 FROM session_runs",
        "UPDATE budgets SET notices = 0",
        "UPDATE tenants SET name = 'mine'",
        "SELECT 1 FROM projections",
        "CREATE TABLE mine (n int)",
    ],
)
async def test_the_edge_may_do_what_it_needs_and_nothing_else(walled: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await walled.fetch(statement, tenant=TENANT)


OPERATORS = {
    "backlog_v1": "how much waits in the ledgers, by kind alone: operators have to see all of it",
    "lift_tenant_v1": "of the tenant that the session names: who resumes it takes back what shut it out",
    "list_tenants_v1": "which tenants there are: an operator has to find the one to look at",
    "projections_v1": "how far read models are: they are no tenant's",
}
"""Functions for `/v1/admin` alone, and why."""


async def test_the_edge_may_call_the_functions_that_name_their_tenant(walled: Database) -> None:
    rows = await walled.fetch(
        """SELECT proname FROM pg_proc
           WHERE pronamespace = 'public'::regnamespace AND has_function_privilege(oid, 'EXECUTE')"""
    )
    assert {row["proname"] for row in rows} == OPERATORS.keys() | {
        "accept_placed_run_v1",
        "accept_runs_v1",
        "append_fact_v1",
        "append_fact_v2",
        "begin_login_v1",
        "confirm_runs_v1",
        "current_tenant",
        "end_login_v1",
        "erase_identity_v1",
        "erase_identity_v2",
        "erase_identity_v3",
        "find_api_keys_v1",
        "find_login_v1",
        "find_service_account_v1",
        "holder_of_code_v1",
        "holder_of_refresh_token_v1",
        "instance_secret_v1",
        "note_origins_v1",
        "read_revocations_v1",
        "issue_stream_ticket_v1",
        "read_streams_v1",
        "read_streams_v2",
        "redeem_stream_ticket_v1",
        "stream_heads_v1",
        "touch_api_keys_v1",
    }
