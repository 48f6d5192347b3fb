"""What is kept from the log is what the log says, and can be made anew while everybody is at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from codeagent.cli.main import app
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.projections import rebuild
from codeagent.projections.audit import AuditProjector
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.projection import Projection
from codeagent.projections.rebuild import Rebuilt, make_anew
from codeagent.projections.runs import RunsProjector
from codeagent.projections.shadow import Shadow, follow
from codeagent.projections.usage import UsageProjector
from tests.integration.projections.logs import (
    Happened,
    append,
    call,
    caught_up,
    execution,
    new_run_id,
    submitted,
    write,
)

TABLES = [kept.table for kind in PROJECTIONS.values() for kept in kind.KEEPS]
NAMED = f"sha256:{'a' * 64}"
STORY_EVENTS = 6


def story(run_id: str, principal: str = "usr_a") -> list[Happened]:
    """Of a run of a session that does something, and ends."""
    order = submitted(run_id, principal, "test/model", Decimal(1), session_id="ses_1")
    facts: list[Event] = [order, events.RunStarted(run_id=run_id)]
    facts += [call(run_id, cost="0.25"), execution(run_id), call(run_id, model="test/other")]
    facts.append(events.RunCompleted(run_id=run_id, reason="done", message=f"see {NAMED}"))
    return [Happened(run_id, fact, seconds=second) for second, fact in enumerate(facts)]


async def followed(database: Database) -> None:
    for kind in PROJECTIONS.values():
        await caught_up(database, kind(database, EventLog(database)), most=2_000)


async def rows_of(database: Database, table: str) -> list[str]:
    return [row[0] for row in await database.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")]


async def everything(database: Database) -> dict[str, list[str]]:
    return {table: await rows_of(database, table) for table in TABLES}


async def made_anew(database: Database, kind: type[Projection], *, swap: bool) -> Rebuilt:
    [made] = [each async for each in make_anew(database, [kind], swap=swap)]
    return made


@pytest.fixture
async def kept(database: Database) -> Database:
    """A database in which two runs are kept."""
    for _ in range(2):
        await write(database, story(new_run_id()))
    await followed(database)
    return database


CHANGES = [
    ("runs", "UPDATE runs SET status = 'failed'", 2, 2),
    ("runs", "DELETE FROM runs WHERE run_id = (SELECT min(run_id) FROM runs)", 1, 0),
    ("usage_runs", "UPDATE usage_runs SET cost_usd = cost_usd - 0.01", 2, 2),
    ("usage_by_run", "UPDATE usage_by_run SET calls = calls + 1 WHERE model = 'test/other'", 2, 2),
    ("usage_by_day", "DELETE FROM usage_by_day", 2, 0),
    ("session_runs", "UPDATE session_runs SET status = 'failed'", 2, 2),
    ("session_totals", "UPDATE session_totals SET cost_usd = cost_usd - 0.01", 1, 1),
    ("session_totals", "DELETE FROM session_totals", 1, 0),
    ("agent_runs", "UPDATE agent_runs SET outcome = 'excused'", 2, 2),
    ("audit_events", "DELETE FROM audit_events WHERE action = 'run.completed'", 2, 0),
    ("audit_events", "UPDATE audit_events SET actor_id = 'usr_b' WHERE action = 'run.submitted'", 2, 2),
    ("artifact_references", "INSERT INTO artifact_references VALUES ('ten_test', decode('00', 'hex'))", 0, 1),
]


@pytest.mark.parametrize(("table", "change", "missing", "surplus"), CHANGES, ids=[change for _, change, *_ in CHANGES])
async def test_rows_that_are_not_what_the_log_says_are_counted_and_made_anew(
    kept: Database, table: str, change: str, missing: int, surplus: int
) -> None:
    [kind] = [kind for kind in PROJECTIONS.values() if table in {each.table for each in kind.KEEPS}]
    right = await everything(kept)
    await kept.write(change)
    wrong = await everything(kept)
    [found] = (await made_anew(kept, kind, swap=False)).differences
    assert (found.table, found.missing, found.surplus) == (table, missing, surplus)
    assert await everything(kept) == wrong, "a check has changed something"
    await made_anew(kept, kind, swap=True)
    assert await everything(kept) == right
    assert (await made_anew(kept, kind, swap=False)).differences == []


async def test_an_example_names_the_row(kept: Database) -> None:
    await kept.write("UPDATE runs SET model = 'another' WHERE run_id = (SELECT min(run_id) FROM runs)")
    [row] = await kept.fetch("SELECT min(run_id) AS id FROM runs")
    [found] = (await made_anew(kept, RunsProjector, swap=False)).differences
    assert str(found) == f"runs: 1 rows missing, 1 too many ({row['id']})"


async def test_what_a_relay_takes_meanwhile_is_in_the_new_rows(kept: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all there was has been taken, a run comes, and a relay takes it first."""
    coming = [new_run_id()]

    async def follow_and_wait(session: Connection, log: EventLog, wanted: Mapping[Shadow, Cursor | None]) -> None:
        await follow(session, log, wanted)
        if coming:
            await write(kept, story(coming.pop()))
            await caught_up(kept, RunsProjector(kept, EventLog(kept)))

    monkeypatch.setattr(rebuild, "follow", follow_and_wait)
    made = await made_anew(kept, RunsProjector, swap=True)
    assert (made.events, made.differences) == (3 * STORY_EVENTS, [])
    assert len(await rows_of(kept, "runs")) == 3


async def test_what_the_relay_has_not_taken_yet_is_left_to_it(kept: Database) -> None:
    await write(kept, story(new_run_id()))
    assert (await made_anew(kept, UsageProjector, swap=True)).differences == []
    assert len(await rows_of(kept, "usage_runs")) == 2
    await caught_up(kept, UsageProjector(kept, EventLog(kept)))
    assert len(await rows_of(kept, "usage_runs")) == 3


async def test_a_place_that_is_that_of_no_event_is_put_right(kept: Database) -> None:
    """Beyond the log's end a relay would pass over what comes."""
    await kept.write("UPDATE projections SET global_position = global_position + 1000 WHERE name = 'runs'")
    await made_anew(kept, RunsProjector, swap=True)
    await write(kept, story(new_run_id()))
    await caught_up(kept, RunsProjector(kept, EventLog(kept)))
    assert len(await rows_of(kept, "runs")) == 3


async def test_a_relay_forgets_what_it_remembers_of_old_rows(database: Database) -> None:
    relay, run_id = RunsProjector(database, EventLog(database)), new_run_id()
    await append(database, Happened(run_id, submitted(run_id, "usr_a", "test/model")).stored(1))
    await caught_up(database, relay)
    relay._views[run_id].model = "something else"
    await made_anew(database, RunsProjector, swap=True)
    await append(database, Happened(run_id, events.RunStarted(run_id=run_id)).stored(2))
    await caught_up(database, relay)
    [row] = await database.fetch("SELECT version, model FROM runs")
    assert dict(row) == {"version": 2, "model": "test/model"}


async def test_what_is_kept_beside_it_is_left_alone(kept: Database) -> None:
    """A call that is counted for the second time ends no reservation: that was done, or it is the relay's to do."""
    await kept.write(
        """INSERT INTO call_reservations
           SELECT substr(stream_id, 6)::uuid, event_id, tenant_id, 'run_a', 'usr_a', NULL, 1, 1, clock_timestamp()
           FROM events WHERE stream_id LIKE 'call-%' LIMIT 1"""
    )
    await made_anew(kept, UsageProjector, swap=True)
    assert len(await rows_of(kept, "call_reservations")) == 1


class Killed(AuditProjector):
    """Its session ends while rows are made."""

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        await self._database.fetch(
            "SELECT pg_terminate_backend($1)", await connection.fetchval("SELECT pg_backend_pid()")
        )
        await super().take(connection, page)


async def test_a_session_that_ends_leaves_all_as_it_was(kept: Database) -> None:
    before = await everything(kept)
    with pytest.raises((CodeAgentError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await made_anew(kept, Killed, swap=True)
    assert await everything(kept) == before


@pytest.fixture
def on_the_terminal(newest_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")


def projections(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["projections", *arguments])


@pytest.mark.usefixtures("on_the_terminal")
def test_an_operator_lists_checks_and_rebuilds() -> None:
    assert {line.split()[1] for line in projections("list").stdout.splitlines()[1:]} == {"not"}
    assert projections("check", "usage").stdout.startswith("usage: as the log says (0 events")
    assert projections("rebuild").exit_code == 0
    listed = projections("list").stdout.splitlines()
    assert [line.split()[0] for line in listed[1:]] == list(PROJECTIONS)
    assert not listed[1].endswith("-"), "it is not told when it was made anew"
    unknown = projections("rebuild", "invoices")
    assert (unknown.exit_code, "there is no projection invoices" in unknown.stderr) == (2, True)
