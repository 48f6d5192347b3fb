"""The events of runs once more, on a topic of somebody's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import structlog
from typer.testing import CliRunner, Result

from codeagent.broker.publisher import Publisher
from codeagent.cli.main import app
from codeagent.errors import CodeAgentError
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.envelope import to_headers
from codeagent.messages.ids import INSTALLATION
from codeagent.relay.republish import Range, Republisher
from tests.integration.broker.conftest import Bench
from tests.integration.projections.logs import Happened, copy, in_order, new_run_id
from tests.integration.projections.test_rebuild import story

OF_RUN = 3
"""Of a story: its calls and commands are in streams of their own, which the topic of runs has never had."""


@pytest.fixture
async def database(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def runs(database: Database) -> list[str]:
    """More than a page of them."""
    run_ids = [new_run_id() for _ in range(200)]
    events: list[Happened] = [event for run_id in run_ids for event in story(run_id)]
    await copy(database, in_order(events))
    return run_ids


async def settled(database: Database) -> EventLog:
    """Until no transaction of the server's own holds the log's end back."""
    log = EventLog(database)
    [newest] = await database.fetch("SELECT count(*) FROM events")
    async with asyncio.timeout(30):
        while len(await log.read_all(Cursor(), 10_000)) < newest[0]:
            await asyncio.sleep(0.01)
    return log


async def test_a_new_consumer_gets_what_the_topic_of_runs_had(
    bench: Bench, database: Database, runs: list[str]
) -> None:
    log, places = await settled(database), []
    sent = await Republisher(log, bench.publisher).republish(
        Range(), bench.topic, lambda place, _: places.append(place)
    )
    assert sent == OF_RUN * len(runs)
    records = await bench.read(bench.topic, sent)
    for run_id in runs:
        expected = [event async for event in log.stream(f"run-{run_id}")]
        found = [record for record in records if record.key == run_id.encode()]
        assert [record.value for record in found] == [event.data for event in expected]
        assert [dict(record.headers) for record in found] == [dict(to_headers(event.envelope())) for event in expected]
    assert len(places) == 2


async def test_it_goes_on_from_where_it_was_interrupted_and_ends_where_it_is_told(
    bench: Bench, database: Database, runs: list[str]
) -> None:
    log, places = await settled(database), []
    republisher = Republisher(log, bench.publisher)
    total = await republisher.republish(Range(), bench.topic, lambda place, sent: places.append((place, sent)))
    place, first = places[0]
    assert await republisher.republish(Range(until=place), bench.topic, lambda *_: None) == first
    assert await republisher.republish(Range(after=place), bench.topic, lambda *_: None) == total - first


async def test_an_event_of_which_nobody_knows_where_it_belongs_is_named_and_the_others_are_sent(
    bench: Bench, database: Database, runs: list[str]
) -> None:
    log = await settled(database)
    await database.write(
        "UPDATE events SET metadata = '[]' WHERE stream_id = $1 AND stream_version = 2", f"run-{runs[0]}"
    )
    with structlog.testing.capture_logs() as lines:
        sent = await Republisher(log, bench.publisher).republish(Range(), bench.topic, lambda *_: None)
    assert sent == OF_RUN * len(runs) - 1
    [line] = [line for line in lines if line["event"] == "event.unreadable"]
    assert (line["stream_id"], line["version"], line["code"]) == (f"run-{runs[0]}", 2, "corrupt_row")


async def test_where_the_broker_is_away_it_ends_with_the_reason(
    bench: Bench, database: Database, runs: list[str]
) -> None:
    away = Publisher(replace(bench.connection, bootstrap_servers="127.0.0.1:1", timeout_seconds=0.2))
    with pytest.raises(CodeAgentError, match="the broker cannot be reached"):
        await Republisher(await settled(database), away).republish(Range(), bench.topic, lambda *_: None)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--topic", "codeagent.run.commands.v1"), "is a topic of this system"),
        (("--topic", "codeagent.run.commands.v1.agent-worker.dlq"), "is a topic of this system"),
        (("--topic", "mine", "--from", "yesterday"), "not a cursor"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    newest_database_url: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    done: Result = CliRunner().invoke(app, ["events", "republish", *words])
    assert done.exit_code in {1, 2}
    assert reason in done.stderr


async def test_it_ends_where_the_log_ended_when_it_began_whatever_comes_meanwhile(
    bench: Bench, database: Database, runs: list[str]
) -> None:
    log = await settled(database)

    class Busy(EventLog):
        """Of an installation where a run is written for each page that is read."""

        async def read_category(self, category: str, after: Cursor, limit: int = 500) -> Sequence[StoredEvent]:
            page = await super().read_category(category, after, limit)
            await copy(database, in_order(story(new_run_id())))
            await settled(database)
            return page

    async with asyncio.timeout(60):
        sent = await Republisher(Busy(database), bench.publisher).republish(Range(), bench.topic, lambda *_: None)
    assert sent == OF_RUN * len(runs)
    assert len(await log.read_category("run", Cursor(), 10_000)) > sent


async def test_the_command_writes_down_who_sends_what_where(
    bench: Bench, database: Database, runs: list[str], newest_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settled(database)
    monkeypatch.setenv("CODEAGENT_DATABASE_URL", newest_database_url)
    monkeypatch.setenv("CODEAGENT_KAFKA_BOOTSTRAP_SERVERS", str(bench.connection.bootstrap_servers))
    monkeypatch.setenv("CODEAGENT_KAFKA_IDEMPOTENT", str(bench.connection.idempotent).lower())
    monkeypatch.setenv("SUDO_UID", "1234")
    words = ["events", "republish", "--topic", bench.topic]
    done: Result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert done.exit_code == 0, done.output
    assert f"{OF_RUN * len(runs)} events sent to {bench.topic}" in done.stdout
    [row] = await database.fetch("SELECT tenant_id, data, metadata FROM events WHERE event_type = 'audit.read'")
    assert (row["tenant_id"], json.loads(row["metadata"])["authid"]) == (INSTALLATION, "operator:1234")
    read = json.loads(row["data"])
    assert (read["access"], read["filter"]["topic"], read["filter"]["from"]) == ("republish", bench.topic, "0-0")
    assert f"up to {read['filter']['to']}" in done.stderr
