"""The services' own role: it adds to the log, changes nothing in it, and may do what is written down here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from codeagent.cli.parts import role_database
from codeagent.cli.secrets import open_secrets
from codeagent.cli.services import ROLES
from codeagent.errors import Unavailable
from codeagent.eventlog import migrate
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages.ids import run_stream
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.rebuild import make_anew
from codeagent.settings import read_settings
from codeagent.subjects.keys import SubjectKeys
from tests.integration.eventlog.steps import TENANT, cause, commit_step, new_run, prepared, started, step, submitted
from tests.services.postgres import PostgresCluster

WHOLE, GROWS = "DELETE INSERT SELECT UPDATE", "INSERT SELECT"
GRANTS = {
    "agent_runs": WHOLE,
    "agent_versions": "SELECT UPDATE(state)",
    "agents": "SELECT UPDATE(canary) UPDATE(rolled_back) UPDATE(updated_at) UPDATE(version)",
    "alembic_version": "SELECT",
    "artifact_references": "DELETE INSERT SELECT",
    "audit_anchors": "INSERT SELECT UPDATE",
    "audit_checkpoints": "INSERT SELECT UPDATE(kept)",
    "audit_events": "DELETE INSERT SELECT",
    "audit_keys": GROWS,
    "audit_leaves": GROWS,
    "audit_tiles": "INSERT SELECT UPDATE",
    "budgets": "SELECT UPDATE(noticed_from) UPDATE(noticed_percent) UPDATE(notices)",
    "call_reservations": WHOLE,
    "dead_letters": WHOLE,
    "dependency_caches": WHOLE,
    "effects": WHOLE,
    "erasures": "SELECT UPDATE(certificate) UPDATE(closed_at) UPDATE(completed_at) UPDATE(counts) UPDATE(key_id) UPDATE(runs) "
    "UPDATE(shredded_at)",
    "events": "INSERT(data) INSERT(data_digest) INSERT(event_id) INSERT(event_type) INSERT(key_id) INSERT(leaf_hash) "
    "INSERT(metadata) INSERT(occurred_at) INSERT(schema_version) INSERT(sealed) INSERT(sealed_digest) INSERT(stream_id) "
    "INSERT(stream_version) INSERT(subject_id) INSERT(tenant_id) SELECT",
    "fact_origins": WHOLE,
    "git_credentials": "SELECT UPDATE(token_sealed)",
    "held_subjects": "SELECT",
    "instance_secrets": "SELECT UPDATE(sealed)",
    "legal_holds": "SELECT",
    "outbox": WHOLE,
    "passwords": "INSERT",
    "projections": "INSERT SELECT UPDATE",
    "provider_credentials": "SELECT UPDATE(last_used_at) UPDATE(secret_sealed)",
    "provider_health": WHOLE,
    "response_cache": WHOLE,
    "retention_policy": "SELECT",
    "revocations": WHOLE,
    "runs": WHOLE,
    "sandbox_quotas": "SELECT",
    "sandbox_reservations": WHOLE,
    "session_runs": WHOLE,
    "session_totals": WHOLE,
    "signing_keys": "SELECT UPDATE(private_sealed)",
    "snapshots": "DELETE SELECT",
    "submissions": WHOLE,
    "tenants": "INSERT SELECT UPDATE",
    "usage_by_day": WHOLE,
    "usage_by_run": WHOLE,
    "usage_runs": WHOLE,
    "users": "INSERT SELECT UPDATE(email_sealed)",
    "webhook_attempts": "DELETE INSERT SELECT",
    "webhook_deliveries": WHOLE,
    "webhooks": "SELECT UPDATE(disabled_reason) UPDATE(exhausted) UPDATE(previous_secret) UPDATE(secret) "
    "UPDATE(status) UPDATE(updated_at) UPDATE(version)",
}
"""What services may do with which table: a new table that they use has to be granted, and named here."""
NONE_OF_THEIRS = {
    "api_keys",
    "authorization_codes",
    "login_sessions",
    "login_throttles",
    "placements",
    "privacy_breaches",
    "privacy_requests",
    "projects",
    "refresh_tokens",
    "service_accounts",
    "sessions",
    "stream_tickets",
}
"""Tables that are the edge's alone."""
FUNCTIONS = {
    "append_fact_v1",
    "append_fact_v2",
    "claim_effects_v3",
    "claim_sandboxes_v2",
    "commit_steps_v3",
    "record_outcomes_v3",
    "bound_sandboxes_v1",
    "claim_due_effects_v1",
    "claim_due_sandboxes_v1",
    "claim_effects_v2",
    "claim_sandboxes_v1",
    "commit_steps_v1",
    "commit_steps_v2",
    "current_tenant",
    "instance_secret_v1",
    "held_runs_v1",
    "is_run_held_v1",
    "is_submitted_v1",
    "lift_tenant_v1",
    "next_breach_v1",
    "erase_sealed_v1",
    "projections_v1",
    "prune_logins_v1",
    "record_outcomes_v2",
    "reserve_call_v1",
    "reserve_sandbox_v1",
    "thin_checkpoints_v1",
    "is_run_due_v1",
    "retire_content_v2",
    "runs_due_v1",
}
ATTACKS = (
    "UPDATE events SET data = '{}'",
    "UPDATE events SET tenant_id = tenant_id WHERE false",
    "DELETE FROM events",
    "TRUNCATE events",
    "SELECT 1 FROM events FOR UPDATE",
    "INSERT INTO events (event_id) SELECT event_id FROM events ON CONFLICT (event_id) DO UPDATE SET data = '{}'",
    "ALTER TABLE events DROP COLUMN leaf_hash",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
    "CREATE TRIGGER mine BEFORE INSERT ON events EXECUTE FUNCTION forget_revoked_credential()",
    "CREATE RULE mine AS ON INSERT TO events DO INSTEAD NOTHING",
    "CREATE POLICY mine ON events USING (false)",
    "DROP INDEX events_cursor",
    "DROP TABLE events",
    "UPDATE events SET sealed = NULL",
    "SELECT erase_sealed_v1('none', 10)",
    "CREATE TABLE mine (n int)",
    "CREATE OR REPLACE FUNCTION current_tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'mine' $$",
)
_GRANTED = """
SELECT c.relname AS "table", string_agg(privilege, ' ' ORDER BY privilege) AS privileges FROM pg_class c
LEFT JOIN LATERAL (
    SELECT a.privilege_type AS privilege FROM aclexplode(c.relacl) a WHERE a.grantee = $1::regrole
    UNION ALL
    SELECT a.privilege_type || '(' || t.attname || ')' FROM pg_attribute t, aclexplode(t.attacl) a
    WHERE t.attrelid = c.oid AND a.grantee = $1::regrole) p ON true
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relname NOT LIKE '%\\_seq'
GROUP BY c.relname"""


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, connections=2, role=SERVICE_ROLE)
    yield database
    await database.close()


async def test_no_service_changes_the_log_or_how_it_is_kept(database_url: str, database: Database) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    settings = read_settings(database_url=database_url, kafka_bootstrap_servers="127.0.0.1:1")
    for role in ROLES:
        secrets = await open_secrets("", settings)
        theirs = role_database(role, settings, secrets, SubjectKeys())
        for attack in ATTACKS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await theirs.write(attack)
                pytest.fail(f"{role} may {attack}")
        await theirs.close()
        await secrets.stop()
    assert len(await EventLog(database).read_stream(run_stream(run_id))) == 1


async def test_content_is_emptied_where_the_log_says_that_its_subject_was_erased_alone(
    database: Database, service: Database
) -> None:
    """Whatever a row of an erasure says: services write those rows."""
    run_id, key = new_run(), await database.subjects.of(TENANT, "usr_a")
    envelope = cause(run_id, TENANT)
    told = prepared(run_id, 0, [submitted(run_id)], envelope, key)
    await commit_step(database, replace(step(run_id, 0, tenant=TENANT), cause=envelope, events=told))
    await database.write("INSERT INTO erasures (id, tenant_id, subject_id) VALUES ('prv_x', $1, 'usr_b')", TENANT)
    await service.write("UPDATE erasures SET key_id = $1, closed_at = now(), shredded_at = now()", told[0].key_id)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.write("SELECT erase_sealed_v1('prv_x', 10)")
    assert await database.fetch("SELECT count(*) FROM events WHERE sealed IS NOT NULL") == [(1,)]


async def test_services_may_do_what_is_written_down_and_nothing_else(database: Database) -> None:
    rows = await database.fetch(_GRANTED, SERVICE_ROLE)
    granted = {row["table"]: row["privileges"] for row in rows}
    assert {table: what for table, what in granted.items() if what is not None} == GRANTS
    assert {table for table, what in granted.items() if what is None} == NONE_OF_THEIRS
    functions = await database.fetch(
        """SELECT proname FROM pg_proc
           WHERE pronamespace = 'public'::regnamespace AND has_function_privilege($1, oid, 'EXECUTE')""",
        SERVICE_ROLE,
    )
    assert {row["proname"] for row in functions} == FUNCTIONS


async def test_services_see_every_tenant_in_the_tables_that_are_theirs(database: Database) -> None:
    rows = await database.fetch(
        """SELECT c.relname FROM pg_class c
           WHERE c.relnamespace = 'public'::regnamespace AND c.relrowsecurity AND c.relname = ANY ($1)
                 AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polqual IS NOT NULL
                                 AND pg_get_expr(p.polqual, c.oid) = 'true' AND $2::regrole = ANY (p.polroles))""",
        list(GRANTS),
        SERVICE_ROLE,
    )
    assert [row["relname"] for row in rows] == []


async def test_what_runs_with_the_owners_rights_meets_no_table_that_a_caller_has_made(
    database: Database, service: Database
) -> None:
    [row] = await database.fetch(
        "SELECT array_agg(proname) FROM pg_proc WHERE prosecdef AND NOT proconfig[1] LIKE $1", "%, pg_temp"
    )
    assert row[0] is None
    async with service.session() as session:
        await session.execute("CREATE TEMPORARY TABLE instance_secrets (name text PRIMARY KEY, sealed bytea)")
        await session.fetchval("SELECT instance_secret_v1('mine', 'offered')")
        assert await session.fetchval("SELECT count(*) FROM pg_temp.instance_secrets") == 0
        assert await session.fetchval("SELECT count(*) FROM public.instance_secrets") == 1


async def test_projections_are_made_anew_by_a_service(database: Database, service: Database) -> None:
    run_id = new_run()
    await commit_step(service, step(run_id, 0, [started()]))
    assert [made.kind.NAME async for made in make_anew(service, [*PROJECTIONS.values()], swap=True)] == [*PROJECTIONS]
    rows = await service.fetch("SELECT run_id FROM runs")
    assert [row[0] for row in rows] == [run_id]


async def test_an_account_that_owns_nothing_serves_and_cannot_become_the_owner(
    any_postgres: PostgresCluster, database_url: str
) -> None:
    account = "serving" + database_url[-12:]
    any_postgres.sql(
        f"CREATE ROLE {account} LOGIN PASSWORD 'secret' NOINHERIT; GRANT {EDGE_ROLE}, {SERVICE_ROLE} TO {account}"
    )
    name = database_url.rsplit("/", 1)[1]
    address = any_postgres.server.address
    url = f"postgresql://{account}:secret@{address.host}:{address.port}/{name}"
    theirs = Database(url, connections=1, role=SERVICE_ROLE)
    run_id = new_run()
    await commit_step(theirs, step(run_id, 0, [started()]))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await theirs.write("SET ROLE codeagent")
    await theirs.write("SET ROLE NONE")
    for attack in ATTACKS:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await theirs.write(attack)
    await theirs.close()
    any_postgres.sql(f"DROP ROLE {account}")


async def test_a_database_without_the_role_says_what_to_do(any_postgres: PostgresCluster, database_url: str) -> None:
    early = Database(database_url, connections=1, role="codeagent_unheard_of")
    with pytest.raises(Unavailable, match="does not know us as codeagent_unheard_of: is it upgraded"):
        await early.fetch("SELECT 1")
    account = "stranger" + database_url[-12:]
    any_postgres.sql(f"CREATE ROLE {account} LOGIN PASSWORD 'secret'")
    stranger = Database(
        database_url.replace(any_postgres.server.address.password, "secret").replace("//codeagent:", f"//{account}:"),
        connections=1,
        role=SERVICE_ROLE,
    )
    with pytest.raises(Unavailable, match="does not know us as codeagent_service"):
        await stranger.fetch("SELECT 1")
    any_postgres.sql(f"DROP ROLE {account}")


async def test_who_may_make_roles_and_is_no_superuser_installs_and_serves(any_postgres: PostgresCluster) -> None:
    """As on managed servers: of the roles that it makes it is a member as PostgreSQL makes it one."""
    owner = "managing"
    newer = int(any_postgres.version().split(".")[0]) >= 16
    member = "ADMIN TRUE, SET FALSE, INHERIT FALSE" if newer else "ADMIN OPTION"
    any_postgres.sql(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'secret'")
    any_postgres.sql(f"GRANT {EDGE_ROLE}, {SERVICE_ROLE} TO {owner} WITH {member}")
    any_postgres.sql(f"CREATE DATABASE {owner} OWNER {owner}")
    address = any_postgres.server.address
    url = f"postgresql://{owner}:secret@{address.host}:{address.port}/{owner}"
    await migrate.upgrade(url)
    theirs = Database(url, connections=1, role=SERVICE_ROLE)
    await commit_step(theirs, step(new_run(), 0, [started()]))
    await theirs.close()
    await asyncio.to_thread(any_postgres.drop_database, url)
    any_postgres.sql(f"DROP ROLE {owner}")
