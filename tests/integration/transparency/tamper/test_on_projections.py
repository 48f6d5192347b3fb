"""A superuser changes what is kept from the log in every way there is, and the verification calls each by its name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from codeagent.errors import Rejected
from codeagent.eventlog import migrate
from codeagent.eventlog.database import Database
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.verification import Code, ProjectionVerification
from codeagent.projections.verification import Discrepancy as KeptDiscrepancy
from codeagent.transparency.findings import Discrepancy
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.verification import LogVerification
from tests.integration.transparency.sealed import KEYS, seal_all
from tests.integration.transparency.tamper.attack import Attack
from tests.integration.transparency.tamper.on_projections import ON_PROJECTIONS, make_log
from tests.services.postgres import PostgresCluster

Connection = asyncpg.Connection
TRIED = ON_PROJECTIONS if "CODEAGENT_TEST_EXAMPLES" in os.environ else ON_PROJECTIONS[::3]
"""`make test-log` tries all."""


async def make_sealed(url: str) -> None:
    database = Database(url, connections=2)
    await make_log(database)
    await seal_all(database, Sealer(database, KEYS))
    await database.close()


@pytest.fixture(scope="module")
def attacked_url(any_postgres: PostgresCluster) -> Iterator[str]:
    """One log for all attacks: each is taken back."""
    any_postgres.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    url = any_postgres.new_database()
    asyncio.run(make_sealed(url))
    yield any_postgres.superuser_url(url.rsplit("/", 1)[1])
    any_postgres.drop_database(url)


@pytest.fixture
async def database(attacked_url: str) -> AsyncIterator[Database]:
    opened = Database(attacked_url, connections=1)
    yield opened
    await opened.close()


async def found(connection: Connection, kept: ProjectionVerification) -> list[Discrepancy | KeptDiscrepancy]:
    """All that `audit verify` says."""
    of_the_log = [finding async for finding in LogVerification(connection, KEYS).findings()]
    return [*of_the_log, *[finding async for finding in kept.over(connection)]]


async def test_rows_that_nobody_has_touched_have_nothing_to_be_named(superuser: Connection, database: Database) -> None:
    verification = ProjectionVerification(database)
    assert await found(superuser, verification) == []
    assert (verification.verified, verification.events) == ([*PROJECTIONS], 16)


async def test_one_table_that_is_none_does_not_keep_the_others_from_being_verified(
    superuser: Connection, database: Database
) -> None:
    await superuser.execute("ALTER TABLE audit_events DROP COLUMN outcome")
    verification = ProjectionVerification(database)
    assert [each.code async for each in verification.over(superuser)] == [Code.TABLE_WRONG]
    assert verification.verified == [name for name in PROJECTIONS if name != "audit"]


async def test_one_who_may_make_no_temporary_tables_is_told_so(superuser: Connection, database: Database) -> None:
    name = await superuser.fetchval("SELECT current_database()")
    await superuser.execute(
        f"CREATE ROLE auditor; GRANT pg_read_all_data TO auditor; REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; "
        "SET LOCAL ROLE auditor"
    )
    with pytest.raises(Rejected, match="may make no temporary tables"):
        await anext(ProjectionVerification(database).over(superuser))


def test_there_are_attacks_enough() -> None:
    assert len({attack.name for attack in ON_PROJECTIONS}) == len(ON_PROJECTIONS) >= 12


@pytest.mark.parametrize("attack", TRIED, ids=lambda attack: attack.name)
async def test_an_attack_is_called_by_its_name(superuser: Connection, database: Database, attack: Attack) -> None:
    await attack.strike(superuser)
    findings = await found(superuser, ProjectionVerification(database))
    told = "\n".join(str(finding) for finding in findings)
    assert {finding.code for finding in findings} == {code for code, _ in attack.named}, told
    for code, place in attack.named:
        assert [each for each in findings if each.code == code and place in str(each)], told
