"""`codeagent events tail`: operators watch the log on the terminal, and go on where they stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from codeagent.cli.event_tail import Wanted, described, line, subscribe
from codeagent.cli.main import app
from codeagent.errors import InvalidInput, Rejected
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.ids import INSTALLATION, run_stream
from codeagent.projections.audit import AuditProjector
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, started, step
from tests.integration.projections.logs import caught_up


@pytest.fixture
async def database(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=2)
    yield opened
    await opened.close()


async def test_it_shows_what_is_there_names_what_cannot_be_read_waits_for_more_and_ends_when_told(
    newest_database_url: str, database: Database
) -> None:
    first, second = new_run(), new_run()
    await commit_step(database, step(first, 0, [started(), started()]))
    await database.write("UPDATE events SET schema_version = 99 WHERE stream_version = 1")
    where = {"CODEAGENT_DATABASE_URL": newest_database_url, "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    tail = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "codeagent", "events", "tail", "--category", "run", "--from", "start", "--json"),
        env={**os.environ, **where},
        stdout=asyncio.subprocess.PIPE,
    )
    assert tail.stdout is not None
    try:
        async with asyncio.timeout(60):
            told: list[dict[str, Any]] = [json.loads(await tail.stdout.readline()) for _ in range(2)]
            await commit_step(database, step(second, 0, [started()]))
            told.append(json.loads(await tail.stdout.readline()))
            tail.send_signal(signal.SIGINT)
            assert await tail.wait() == 0
    finally:
        if tail.returncode is None:
            tail.kill()
    assert [(each["stream_id"], each["version"]) for each in told] == [
        (run_stream(first), 1),
        (run_stream(first), 2),
        (run_stream(second), 1),
    ]
    assert told[0]["unreadable"] == "run.started version 99 is newer than this program"
    assert "unreadable" not in told[1]
    assert told[1]["metadata"]["authid"] == "system"
    assert not any("data" in each for each in told), "nobody has asked for it"
    assert await database.fetch("SELECT 1 FROM events WHERE event_type = 'audit.read'") == []
    [event] = await EventLog(database).read_all(Cursor.parse(told[1]["cursor"]))
    assert event.stream_id == run_stream(second)


async def test_what_events_say_is_not_shown_before_it_is_written_down_who_looks(
    newest_database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await commit_step(database, step(new_run(), 0, [started()]))
    where = {"CODEAGENT_DATABASE_URL": newest_database_url, "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    tail = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "codeagent", "events", "tail", "--category", "run", "--from", "start", "--data"),
        env={**os.environ, **where, "SUDO_UID": "1234"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert tail.stdout is not None
    async with asyncio.timeout(60):
        await tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        await tail.wait()
    [read] = [event async for event in of_kind(database, "audit")]
    assert (read.tenant_id, read.metadata["authid"]) == (INSTALLATION, "operator:1234")
    assert read.document() == {"access": "log", "filter": {"category": "run", "from": "start"}}
    await caught_up(database, AuditProjector(database, EventLog(database)))
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    asked = ["admin", "audit", "--actor", "operator:1234", "--json"]
    shown = await asyncio.to_thread(CliRunner().invoke, app, asked)
    assert [json.loads(each)["id"] for each in shown.stdout.splitlines()] == [str(read.id)], shown.output
    *_, search = [event async for event in of_kind(database, "audit")]
    assert search.document() == {"access": "search", "filter": {"actor": "operator:1234"}}


async def of_kind(database: Database, category: str) -> AsyncIterator[StoredEvent]:
    log = EventLog(database)
    [count] = await database.fetch("SELECT count(*) FROM events WHERE stream_id LIKE $1", f"{category}-%")
    async with asyncio.timeout(30):
        while len(page := await log.read_category(category, Cursor())) < count[0]:
            await asyncio.sleep(0.01)
    for event in page:
        yield event


async def test_people_get_a_line_and_the_data_where_they_ask_for_it(database: Database) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    [event] = await EventLog(database).read_stream(run_stream(run_id))
    told = line(described(event, "1-2", with_data=False))
    assert told.startswith("1-2  ")
    assert f"run-{run_id} version 1  run.started.v1  event {event.id}  {TENANT}" in told
    assert "attempt" not in told
    assert line(described(event, "1-2", with_data=True)) == f'{told}\n  {{"attempt": 1}}'


async def test_a_place_is_a_cursor_a_version_start_or_now(database: Database) -> None:
    log, run_id = EventLog(database), new_run()
    await commit_step(database, step(run_id, 0, [started(), started()]))
    stream = run_stream(run_id)
    places = [(await subscribe(log, Wanted(stream, None, after))).cursor for after in ("start", "1", "now")]
    assert places == [0, 1, 2]
    assert (await subscribe(log, Wanted(None, "run", "start"))).cursor == Cursor()
    assert (await subscribe(log, Wanted(None, None, "a-b"))).cursor == Cursor(10, 11)
    now = (await subscribe(log, Wanted(None, None, "now"))).cursor
    assert isinstance(now, Cursor)
    assert await log.read_all(now) == []
    with pytest.raises(Rejected, match="not a cursor"):
        await subscribe(log, Wanted(None, None, "yesterday"))
    for wrong in ("1-2", "-1", "9" * 20):
        with pytest.raises(InvalidInput, match="a number"):
            await subscribe(log, Wanted(stream, None, wrong))


def test_a_stream_and_a_category_are_not_asked_for_at_once() -> None:
    asked = CliRunner().invoke(app, ["events", "tail", "--stream", "run-1", "--category", "run"])
    assert (asked.exit_code, "not both" in asked.stderr) == (2, True)


def test_a_row_that_was_written_by_hand_tells_the_terminal_nothing_to_do() -> None:
    [event] = step(new_run(), 0, [started()]).events
    event = replace(event, metadata={**event.metadata, "authid": "a\x1b[2J\nb"})
    told = line(described(event, "1-2", with_data=False))
    assert told.isprintable()
    assert "authid=a\ufffd[2J\ufffdb" in told
