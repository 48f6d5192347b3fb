"""What the runs of a session have brought: folded from the log once, and what usage says of the same runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from codeagent import clock
from codeagent.eventlog import migrations
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages import events
from codeagent.messages.calls import ModelAttempt
from codeagent.messages.conversation import Usage
from codeagent.messages.envelope import Event
from codeagent.messages.subagents import Parent
from codeagent.messages.values import ApprovalRequest, Outcome
from codeagent.projections.sampling import look_at_any
from codeagent.projections.session_statistics import SessionStatistics, session_statistics
from codeagent.projections.sessions import SessionsProjector
from codeagent.projections.tally import Tally
from codeagent.projections.usage import UsageProjector
from codeagent.projections.usage_report import Dimension, UsageQuery, usage_report
from codeagent.projections.verification import ProjectionVerification
from tests.integration.projections.history import history
from tests.integration.projections.logs import (
    DAY,
    TENANT,
    Happened,
    call,
    caught_up,
    copy,
    execution,
    new_run_id,
    noon,
    submitted,
    write,
)
from tests.integration.projections.test_rebuild import followed, story

SESSION = "ses_1"
TABLES = ("session_runs", "session_totals")
MIGRATION = Path(migrations.__file__).parent / "sql" / "0040_session_totals.sql"


async def fold(database: Database, most: int = 500) -> None:
    await caught_up(database, SessionsProjector(database, EventLog(database)), most)


async def statistics(database: Database, session_id: str = SESSION, tenant: str = TENANT) -> SessionStatistics:
    return (await session_statistics(database, tenant, [session_id]))[session_id]


@pytest.fixture
async def edge(database_url: str) -> AsyncIterator[Database]:
    """The database as the edge sees it."""
    walled = Database(database_url, connections=2, role=EDGE_ROLE)
    yield walled
    await walled.close()


async def rows_of(database: Database) -> list[list[str]]:
    return [[row[0] for row in await database.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")] for table in TABLES]


def order(run_id: str, session_id: str | None = SESSION, parent: Parent | None = None) -> Event:
    return submitted(run_id, "usr_1", "test/model", session_id=session_id, parent=parent)


def told(run_id: str, *story: tuple[float, Event], tenant: str = TENANT) -> list[Happened]:
    """Events of a run, each so many seconds after noon."""
    return [Happened(run_id, event, tenant_id=tenant, seconds=at) for at, event in story]


def at(seconds: float) -> datetime:
    return noon(DAY) + timedelta(seconds=seconds)


def asked() -> events.InputRequired:
    request = ApprovalRequest(
        approval_id="apr", tool_call_id="c", tool="shell", arguments="{}", arguments_digest="", reason="",
        requested_at=noon(DAY), expires_at=noon(DAY),
    )  # fmt: skip
    return events.InputRequired(request=request)


async def test_a_session_has_what_all_its_runs_have_used_failed_attempts_included(database: Database) -> None:
    first, second = new_run_id(), new_run_id()
    used = Usage(input_tokens=100, output_tokens=10)
    cut = ModelAttempt(provider="a", model="1", reason="timeout", usage=used, cost_usd=Decimal("0.07"), seconds=1.0)
    fine = ModelAttempt(provider="a", model="2", usage=used, cost_usd=Decimal("0.03"), seconds=1.0)
    answered = call(first, usage=used + used, attempts=(cut, fine))
    unpriced = call(second, cost=None, outcome=Outcome.FAILED, usage=Usage(input_tokens=5))
    await write(
        database, told(first, (0, order(first)), (1, answered), (2, execution(first)), (3, events.RunCompleted()))
    )
    await write(database, told(second, (4, order(second)), (5, unpriced), (6, events.RunFailed(status_reason="stuck"))))
    await fold(database)
    assert await statistics(database) == SessionStatistics(
        last_run_id=second,
        last_run_status="failed",
        last_active_at=at(6),
        used=Tally(
            calls=2, unpriced_calls=1, input_tokens=205, output_tokens=20, cost_usd=Decimal("0.10"), sandbox_ms=1_500,
            commands=1, memory_mib_ms=1_024 * 1_500, runs_submitted=2, runs_completed=1, runs_failed=1,
        ),
    )  # fmt: skip


async def test_the_status_of_the_last_run_is_that_of_the_run_as_it_goes_on(database: Database) -> None:
    run_id = new_run_id()
    story: Sequence[tuple[Event, str]] = (
        (order(run_id), "submitted"),
        (events.RunStarted(), "working"),
        (asked(), "input_required"),
        (events.RunResumed(deadline_at=noon(DAY)), "working"),
        (call(run_id), "working"),
        (events.RunCanceled(status_reason="requested"), "canceled"),
        (call(run_id, cost="7"), "canceled"),
    )
    await write(database, told(run_id, *((float(second), event) for second, (event, _) in enumerate(story))))
    for second, (_, status) in enumerate(story):
        async with asyncio.timeout(30):
            while not await SessionsProjector(database, EventLog(database)).catch_up(1):
                await asyncio.sleep(0.005)
        found = await statistics(database)
        assert (found.last_run_id, found.last_run_status, found.last_active_at) == (run_id, status, at(second))
    assert found.used.cost_usd == Decimal("7.10"), "a bill that comes late is in it"


async def test_a_run_that_another_one_has_started_counts_and_is_not_the_last(database: Database) -> None:
    parent, child = new_run_id(), new_run_id()
    of = Parent(run_id=parent, effect_id=clock.new_uuid(), principal="usr_1", deadline_at=noon(DAY))
    await write(database, told(parent, (0, order(parent)), (1, events.RunStarted())))
    await write(database, told(child, (2, order(child, parent=of)), (3, call(child)), (4, events.RunCompleted())))
    await fold(database)
    found = await statistics(database)
    assert (found.last_run_id, found.last_run_status, found.last_active_at) == (parent, "working", at(4))
    assert (found.used.runs_submitted, found.used.runs_completed, found.used.calls) == (2, 1, 1)


async def test_an_earlier_run_that_still_says_something_does_not_become_the_last(database: Database) -> None:
    first, second = new_run_id(), new_run_id()
    await write(database, told(first, (0, order(first)), (1, events.RunCompleted())))
    await write(database, told(second, (2, order(second))))
    await fold(database)
    await write(database, [Happened(first, call(first, cost="1"), seconds=9)])
    await fold(database)
    found = await statistics(database)
    assert (found.last_run_id, found.last_run_status, found.last_active_at) == (second, "submitted", at(9))
    assert found.used.cost_usd == 1


async def test_runs_without_a_session_are_nobodys_and_so_are_calls_of_runs_that_the_log_does_not_have(
    database: Database,
) -> None:
    alone, unknown = new_run_id(), new_run_id()
    await write(database, told(alone, (0, order(alone, None)), (1, call(alone)), (2, events.RunCompleted())))
    await write(database, told(unknown, (0, call(unknown)), (1, events.RunCompleted())))
    await fold(database)
    assert await rows_of(database) == [[], []]
    assert await statistics(database) == SessionStatistics()


async def test_two_tenants_share_no_session_whatever_it_is_called(database: Database, edge: Database) -> None:
    mine, theirs = new_run_id(), new_run_id()
    await write(database, told(mine, (0, order(mine))))
    await write(database, told(theirs, (0, order(theirs)), (1, call(theirs)), tenant="ten_other"))
    await fold(database)
    found = await statistics(edge)
    assert (found.last_run_id, found.used.calls) == (mine, 0)
    assert (await statistics(edge, tenant="ten_other")).last_run_id == theirs
    others = "SELECT 1 FROM session_totals WHERE tenant_id = 'ten_other'"
    assert list(await edge.fetch(others, tenant=TENANT)) == [], "whatever a statement should forget"


async def test_sessions_add_up_to_what_usage_says_of_them_whatever_pages_the_log_is_read_in(
    database: Database, edge: Database
) -> None:
    await copy(database, history(900))
    await caught_up(database, UsageProjector(database, EventLog(database)))
    await fold(database, 7)
    in_small_pages = await rows_of(database)
    async with database.transaction() as connection:
        await connection.execute(
            "TRUNCATE session_runs, session_totals; DELETE FROM projections WHERE name = 'sessions'"
        )
    await fold(database, 1_000)
    assert await rows_of(database) == in_small_pages
    sessions = await database.fetch("SELECT tenant_id, session_id FROM session_totals ORDER BY 1, 2")
    assert len(sessions) > 5
    for tenant, session_id in Random(4).sample([tuple(row) for row in sessions], 5):
        days = DAY - timedelta(days=60), DAY + timedelta(days=60)
        query = UsageQuery(*days, (Dimension.SESSION,), session_id=session_id)
        usage = await usage_report(edge, tenant, query, after=None, limit=200)
        assert (await statistics(edge, session_id, tenant)).used == usage.totals


class Dies(SessionsProjector):
    """Fails after it has written its rows, before its place is committed."""

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        await super().take(connection, page)
        raise RuntimeError


async def test_a_page_counts_once_whoever_dies_and_however_many_fold(database: Database) -> None:
    for _ in range(4):
        run_id = new_run_id()
        await write(database, told(run_id, (0, order(run_id)), (1, call(run_id)), (2, events.RunCompleted())))
    log = EventLog(database)
    async with asyncio.timeout(20):
        while not await log.read_all(Cursor(), 1):
            await asyncio.sleep(0.005)
    with pytest.raises(RuntimeError):
        await Dies(database, log).catch_up()
    assert await rows_of(database) == [[], []]
    await asyncio.gather(*(fold(database, 3) for _ in range(4)))
    found = await statistics(database)
    assert (found.used.runs_submitted, found.used.runs_completed, found.used.calls) == (4, 4, 4)


async def test_on_a_database_of_before_it_catches_up_by_itself_and_is_not_called_wrong_meanwhile(
    database: Database,
) -> None:
    for _ in range(3):
        await write(database, story(new_run_id()))
    await followed(database)
    right = await rows_of(database)
    async with database.transaction() as connection:
        await connection.execute("DROP TABLE session_runs, session_totals")
        await connection.execute("DELETE FROM projections WHERE name = 'sessions'")
        await connection.execute(MIGRATION.read_text())
    verification = ProjectionVerification(database)
    assert [str(found) async for found in verification.findings()] == []
    assert verification.not_begun == ["sessions"]
    projector = SessionsProjector(database, EventLog(database))
    while await projector.catch_up(5):
        found = await look_at_any(database)
        assert found is not None
        assert found.wrong == []
    assert await rows_of(database) == right
