"""The pools of all processes fit the database, or it is said which do not."""

from __future__ import annotations

import pytest

from codeagent.cli.pools import connections_wanted, pool_problems
from codeagent.eventlog.capacity import free_connections
from codeagent.eventlog.database import Database
from codeagent.settings import Settings, read_settings
from tests.services.postgres import PostgresCluster


def configured(url: str, **changed: object) -> Settings:
    return read_settings(database_url=url, kafka_bootstrap_servers="127.0.0.1:1", **changed)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODEAGENT_DATABASE_URL", raising=False)


async def test_the_sum_over_processes_and_roles_is_held_against_the_servers_limit(
    database: Database, database_url: str
) -> None:
    free = await free_connections(database)
    assert 50 < free < 200
    assert await pool_problems(configured(database_url)) == []
    few = configured(database_url, deployed_processes={"edge": 2, "provider-worker": 3, "sandbox-worker": 0})
    assert connections_wanted(few) == {
        "edge": 18,
        "agent-worker": 8,
        "provider-worker": 27,
        "sandbox-worker": 0,
        "relay": 8,
    }
    [problem] = await pool_problems(configured(database_url, deployed_processes={"edge": 100}))
    assert problem.variable == "CODEAGENT_DATABASE_CONNECTIONS"
    assert "934 connections (edge 900, agent-worker 8, provider-worker 9, sandbox-worker 9, relay 8)" in problem.message
    assert f"the database has {free} for us" in problem.message


async def test_the_accounts_own_limit_counts(newest_database_url: str, postgres_18: PostgresCluster) -> None:
    postgres_18.sql("ALTER ROLE codeagent CONNECTION LIMIT 20")
    try:
        [problem] = await pool_problems(configured(newest_database_url))
        assert "the database has 20 for us" in problem.message
    finally:
        postgres_18.sql("ALTER ROLE codeagent CONNECTION LIMIT -1")
