"""A superuser changes what is kept from the log in every way there is, and the verification calls each by its name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import asyncpg
import pytest

from codeagent.errors import Rejected
from codeagent.eventlog import migrate
from codeagent.eventlog.database import Database
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.verification import Code, ProjectionVerification
from codeagent.projections.verification import Discrepancy as KeptDiscrepancy
from codeagent.transparency.findings import Code as LogCode
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


NONE_CAN_HAVE = {
    "occurred_at": ("'20000-01-01Z'", "'infinity'", "'-infinity'", "'4000-01-01 BC'", "NULL"),
    "stream_id": ("NULL",),
    "stream_version": ("NULL",),
    "transaction_id": ("NULL",),
    "event_type": ("NULL",),
    "schema_version": ("NULL",),
    "tenant_id": ("NULL",),
    "data_digest": ("NULL",),
    "metadata": ("'[1]'", "'{\"authid\": 1e400}'", "('[' || repeat('[', 3000) || repeat(']', 3000) || ']')::jsonb", "NULL"),
    "leaf_hash": ("NULL",),
}  # fmt: skip
"""Values that no program of ours writes, by their column."""


@pytest.mark.parametrize("column", NONE_CAN_HAVE)
async def test_a_column_that_cannot_be_decoded_is_named_and_stops_nothing(
    superuser: Connection, database: Database, column: str
) -> None:
    await superuser.execute("ALTER TABLE events DROP CONSTRAINT events_pkey, DROP CONSTRAINT events_leaf_hash_check")
    await superuser.execute(f"ALTER TABLE events ALTER {column} DROP NOT NULL")
    for value in NONE_CAN_HAVE[column]:
        attempt = superuser.transaction()
        await attempt.start()
        await superuser.execute(f"UPDATE events SET {column} = {value} WHERE event_id = $1", UUID(int=7))
        verification = ProjectionVerification(database)
        findings = await found(superuser, verification)
        corrupt = [str(each) for each in findings if each.code is LogCode.ROW_CORRUPT]
        assert corrupt, (value, findings)
        assert all(f"event {UUID(int=7)}" in each and column in each for each in corrupt), corrupt
        assert verification.verified == [*PROJECTIONS], (value, findings)
        await attempt.rollback()


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
