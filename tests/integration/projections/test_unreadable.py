"""An event that cannot be read is named, and everybody goes on with the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import structlog

from codeagent.errors import Unreadable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.eventlog.subscription import of_all
from codeagent.eventlog.verify import verify
from codeagent.messages.catalog import CURRENT, UPCASTERS
from codeagent.messages.events import RunCompleted
from codeagent.messages.ids import run_stream
from codeagent.projections.catalog import PROJECTIONS
from tests.integration.projections.logs import (
    TENANT,
    Happened,
    call,
    caught_up,
    execution,
    new_run_id,
    submitted,
    write,
)
from tests.integration.subject_keys import keys_in_memory

NO_SCHEMA, NO_OBJECT = "does not match its schema", "its metadata is no object of texts"
NOT_OPENED = "not a value that this key has sealed for this place"
DAMAGES = {
    "event_type = 'run.teleported'": "unknown message 'run.teleported'",
    "event_type = 'run.submit'": "run.submit ",
    "schema_version = 99": "version 99 is newer than this program",
    "schema_version = 0": NO_SCHEMA,
    "data = '\\xff00'": NO_SCHEMA,
    "data = '[]'": NO_SCHEMA,
    'data = \'{"installed":7,"message":7}\'': NO_SCHEMA,
    "data = NULL": NO_SCHEMA,
    "metadata = '[1]'": NO_OBJECT,
    "metadata = '{\"runid\": {}}'": NO_OBJECT,
    "key_id = '{key}', sealed = '\\x00', sealed_digest = sha256('\\x00')": NOT_OPENED,
}
"""What somebody with all rights may do to a row, and what is said of it. `{key}` is a key that there is."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, subjects=keys_in_memory())
    yield opened
    await opened.close()


def a_run() -> tuple[str, list[Happened]]:
    run_id = new_run_id()
    order = submitted(run_id, "usr_1", "test/model", session_id="ses_1")
    happened = (order, call(run_id), execution(run_id), RunCompleted(message="done"))
    return run_id, [Happened(run_id, event) for event in happened]


async def damaged_log(database: Database) -> tuple[dict[str, str], str]:
    """One run for each damage, of which all but the submission is damaged, and after them a sound one: what is to be
    said by event id, and the sound run."""
    said: dict[str, str] = {}
    key = await database.subjects.of(TENANT, "usr_1")
    assert key is not None
    for damage, problem in DAMAGES.items():
        run_id, happened = a_run()
        await write(database, happened)
        rows = await database.write(
            f"UPDATE events SET {damage.replace('{key}', key.id)} WHERE metadata ->> 'runid' = $1 AND event_type <> 'run.submitted' "
            "RETURNING event_id",
            run_id,
        )
        assert len(rows) == 3
        said |= {str(row["event_id"]): problem for row in rows}
    sound, happened = a_run()
    await write(database, happened)
    return said, sound


def is_install(event: StoredEvent) -> bool:
    return event.stream_id.startswith("exec-") and b'"installed":' in event.data


async def read_all(database: Database, many: int) -> Sequence[StoredEvent]:
    subscription = of_all(EventLog(database), Cursor(), page=3)
    return [await anext(subscription) for _ in range(many)]


class Completed(RunCompleted):
    """As it may be one day."""

    VERSION = 2


def lifted(document: dict[str, Any]) -> dict[str, Any]:
    """Of whoever wrote it for what version 1 was."""
    return {**document, "message": document["message"].strip()}


@pytest.mark.parametrize("version", [1, 2])
async def test_projections_go_on_beyond_it_and_name_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    if version == 2:
        monkeypatch.setitem(CURRENT, RunCompleted.NAME, Completed)
        monkeypatch.setitem(UPCASTERS, (RunCompleted.NAME, 1), lifted)
    said, sound = await damaged_log(database)
    named: dict[str, dict[str, str]] = {}
    for name, kind in PROJECTIONS.items():
        with structlog.testing.capture_logs() as lines:
            await caught_up(database, kind(database, EventLog(database)), most=7)
        unreadable = [line for line in lines if line["event"] == "event.unreadable"]
        named[name] = {line["event_id"]: line["error"] for line in unreadable if line["reader"] == name}
    events = {str(event.id): event for event in await read_all(database, 4 * len(DAMAGES) + 4)}
    kept = {each for each in said if events[each].type not in {"run.teleported", "run.submit"}}
    wanted = {
        "runs": {each for each in said if events[each].stream_id.startswith("run-")},
        "usage": kept,
        "sessions": kept,
        "agent_runs": {each for each in kept if not events[each].stream_id.startswith("exec-")},
        "artifact_references": {each for each in said if events[each].locked or is_install(events[each])},
    }
    for name, theirs in wanted.items():
        assert named[name].keys() == theirs, name
        assert all(said[each] in problem for each, problem in named[name].items())
    for table in ("runs", "usage_runs", "session_runs", "agent_runs", "usage_by_run", "audit_events"):
        column = "resource_id" if table == "audit_events" else "run_id"
        assert await database.fetch(f"SELECT FROM {table} WHERE {column} = $1", sound), table
    [row] = await database.fetch("SELECT status, version FROM runs WHERE run_id = $1", sound)
    assert tuple(row) == ("completed", 2)


async def test_the_line_says_which_event_it_is(database: Database) -> None:
    run_id, happened = a_run()
    await write(database, happened)
    await database.write("UPDATE events SET schema_version = 99 WHERE event_type = 'run.completed'")
    kind = PROJECTIONS["runs"]
    with structlog.testing.capture_logs() as lines:
        await caught_up(database, kind(database, EventLog(database)))
    [line] = [line for line in lines if line["event"] == "event.unreadable"]
    [row] = await database.fetch("SELECT event_id FROM events WHERE schema_version = 99")
    assert line == {
        "event": "event.unreadable",
        "log_level": "error",
        "reader": "runs",
        "stream_id": run_stream(run_id),
        "version": 2,
        "event_id": str(row["event_id"]),
        "code": "unknown_version",
        "error": "run.completed version 99 is newer than this program",
    }


async def test_subscriptions_give_it_as_it_is_stored_and_go_on(database: Database) -> None:
    said, sound = await damaged_log(database)
    events = await read_all(database, 4 * len(DAMAGES) + 4)
    problems: dict[str, str] = {}
    for event in events:
        try:
            event.decode()
        except Unreadable as error:
            problems[str(event.id)] = error.detail
    assert problems.keys() == said.keys()
    assert all(said[each] in problem for each, problem in problems.items())
    assert events[-1].stream_id == run_stream(sound)
    found = {str(finding.event_id) for finding in verify(events) if finding.event_id is not None}
    assert found == said.keys(), "and the check of the log names the same"
