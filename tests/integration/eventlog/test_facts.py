"""The control plane: a row and its fact are committed together, in one tenant, at one version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from codeagent import clock
from codeagent.errors import Conflict, VersionMismatch
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import leaf_of
from codeagent.eventlog.tenants import EDGE_ROLE
from tests.integration.eventlog.steps import TENANT, started

INSERT = "INSERT INTO things (id, tenant_id, version) VALUES ($1, $2, 1) RETURNING *"
UPDATE = "UPDATE things SET version = version + 1 WHERE id = $1 AND version = $2 RETURNING *"
STREAM = "thing-1"


def author(tenant_id: str = TENANT) -> Author:
    return Author(tenant_id, "app_user", "usr_1", clock.new_uuid())


@pytest.fixture
async def control(database: Database, database_url: str) -> AsyncIterator[ControlPlane]:
    await database.write("CREATE TABLE things (id text PRIMARY KEY, tenant_id text, version bigint)")
    await database.write("ALTER TABLE things ENABLE ROW LEVEL SECURITY")
    await database.write(f"GRANT SELECT, INSERT, UPDATE ON things TO {EDGE_ROLE}")
    await database.write(
        f"CREATE POLICY of_tenant ON things TO {EDGE_ROLE} USING (tenant_id = (SELECT current_tenant()))"
    )
    walled = Database(database_url, connections=4, role=EDGE_ROLE)
    yield ControlPlane(walled)
    await walled.close()


async def create(control: ControlPlane, by: Author) -> None:
    async with control.change(by) as change:
        row = await change.row(INSERT, "1", by.tenant_id)
        await change.record(STREAM, row["version"], started())


async def update(control: ControlPlane, by: Author, version: int) -> None:
    async with control.change(by) as change:
        row = await change.row(UPDATE, "1", version)
        await change.record(STREAM, row["version"], started())


async def versions(database: Database) -> tuple[int, list[int]]:
    """Of the row, and of its stream."""
    rows = await database.fetch("SELECT version FROM things")
    events = await EventLog(database).read_stream(STREAM)
    return rows[0]["version"] if rows else 0, [event.version for event in events]


async def test_a_fact_is_hashed_and_says_who_changed_what_within_which_flow(
    control: ControlPlane, database: Database
) -> None:
    by = author()
    await create(control, by)
    [event] = await EventLog(database).read_stream(STREAM)
    assert event.leaf_hash == leaf_of(event)
    assert event.tenant_id == TENANT
    envelope = event.envelope()
    assert (envelope.actor_type, envelope.actor_id) == ("app_user", "usr_1")
    assert envelope.correlation_id == by.correlation_id
    assert envelope.key == STREAM


async def test_one_of_many_changes_decided_on_the_same_version_is_done(
    control: ControlPlane, database: Database
) -> None:
    await create(control, author())
    ends = await asyncio.gather(*(update(control, author(), 1) for _ in range(8)), return_exceptions=True)
    assert [end for end in ends if end is None] == [None]
    assert {type(end) for end in ends if end is not None} == {VersionMismatch}
    assert await versions(database) == (2, [1, 2])


async def test_a_row_without_its_fact_and_a_fact_without_its_row_are_not_committed(
    control: ControlPlane, database: Database
) -> None:
    with pytest.raises(Conflict):
        async with control.change(author()) as change:
            row = await change.row(INSERT, "1", TENANT)
            await change.record(STREAM, row["version"] + 1, started())  # a gap
    with pytest.raises(RuntimeError):
        async with control.change(author()) as change:
            await change.record(STREAM, 1, started())
            raise RuntimeError
    assert await versions(database) == (0, [])


async def test_what_is_already_there_is_a_conflict(control: ControlPlane, database: Database) -> None:
    await create(control, author())
    with pytest.raises(Conflict):
        await create(control, author())
    assert await versions(database) == (1, [1])


async def test_another_tenant_neither_finds_the_row_nor_continues_its_stream(
    control: ControlPlane, database: Database
) -> None:
    await create(control, author())
    with pytest.raises(VersionMismatch):
        await update(control, author("ten_other"), 1)
    with pytest.raises(Conflict):
        async with control.change(author("ten_other")) as change:
            await change.record(STREAM, 2, started())
    assert await versions(database) == (1, [1])


@pytest.mark.parametrize("stream", ["run-run_1", "call-1", "exec-1"])
async def test_the_edge_writes_no_facts_of_runs(control: ControlPlane, stream: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with control.change(author()) as change:
            await change.record(stream, 1, started())
