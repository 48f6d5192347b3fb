"""A step commits all of itself at the expected version, or nothing."""

from __future__ import annotations

import asyncio
from types import NoneType

import pytest

from codeagent import clock
from codeagent.errors import Conflict
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.step import Steps
from codeagent.eventlog.verify import verify
from codeagent.messages.ids import run_stream
from tests.integration.eventlog.steps import commit_step, model_call, new_run, started, step


async def counts(database: Database) -> tuple[int, int, int]:
    rows = await database.fetch(
        "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM effects), (SELECT count(*) FROM outbox)"
    )
    return tuple(rows[0])


async def test_facts_effects_and_the_announcement_stand_together(database: Database) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started(), started()], effects=[model_call(run_id)]))
    assert await counts(database) == (2, 1, 1)
    stored = await EventLog(database).read_stream(run_stream(run_id))
    assert [event.version for event in stored] == [1, 2]
    assert verify(stored) == []


@pytest.mark.parametrize("expected", [0, 2])
async def test_a_step_at_another_version_changes_nothing(database: Database, expected: int) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    before = await counts(database)
    with pytest.raises(Conflict):
        await commit_step(database, step(run_id, expected, [started()], effects=[model_call(run_id)]))
    assert await counts(database) == before


async def test_the_version_is_asserted_even_when_nothing_is_appended(database: Database) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    with pytest.raises(Conflict):
        await commit_step(database, step(run_id, 0))
    await commit_step(database, step(run_id, 1))


async def test_steps_that_share_a_statement_are_answered_each_for_itself(database: Database) -> None:
    runs = [new_run() for _ in range(5)]
    moved, steps = runs[3], Steps(database)
    await steps.commit(step(moved, 0, [started()]))
    ended = await asyncio.gather(
        *(steps.commit(step(run_id, 0, [started()], effects=[model_call(run_id)])) for run_id in runs),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in ended] == [NoneType, NoneType, NoneType, Conflict, NoneType]
    heads = await EventLog(database).heads([run_stream(run_id) for run_id in runs])
    assert set(heads.values()) == {1}
    assert len(await database.fetch("SELECT 1 FROM effects")) == 4
    assert len(await database.fetch("SELECT 1 FROM outbox")) == 5


async def test_one_that_meets_what_is_there_already_spoils_no_other(database: Database) -> None:
    runs, steps = [new_run() for _ in range(4)], Steps(database)
    twice = model_call(runs[0])
    await steps.commit(step(runs[0], 0, [started()], effects=[twice]))
    ended = await asyncio.gather(
        *(steps.commit(step(run_id, 0, [started()], effects=[model_call(run_id)])) for run_id in runs[1:]),
        steps.commit(step(runs[0], 1, [started()], effects=[twice])),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in ended] == [NoneType, NoneType, NoneType, Conflict]
    assert len(await database.fetch("SELECT 1 FROM effects")) == 4


async def test_of_many_steps_at_one_version_exactly_one_commits(database: Database) -> None:
    run_id = new_run()
    attempts = [commit_step(database, step(run_id, 0, [started()])) for _ in range(16)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(outcome is None or isinstance(outcome, Conflict) for outcome in outcomes)


async def test_a_settled_effect_goes_and_the_next_comes_in_one_commit(database: Database) -> None:
    run_id = new_run()
    first, second = model_call(run_id), model_call(run_id)
    await commit_step(database, step(run_id, 0, [started()], effects=[first]))
    await commit_step(database, step(run_id, 1, [started()], effects=[second], settled=[first.id]))
    rows = await database.fetch("SELECT id FROM effects")
    assert [row["id"] for row in rows] == [second.id]


async def test_the_handled_message_leaves_the_outbox_with_the_step(database: Database) -> None:
    run_id, row_id = new_run(), clock.new_uuid()
    await database.write(
        """INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at)
           VALUES ($1, 't', $2, 'ten_test', '{}', '{}', now())""",
        row_id,
        run_id,
    )
    await commit_step(database, step(run_id, 0, [started()], handled=row_id))
    rows = await database.fetch("SELECT id FROM outbox WHERE id = $1", row_id)
    assert rows == []


async def test_the_end_of_a_run_takes_all_its_ledger_rows(database: Database) -> None:
    run_id, other = new_run(), new_run()
    await commit_step(database, step(run_id, 0, [started()], effects=[model_call(run_id), model_call(run_id)]))
    await commit_step(database, step(other, 0, [started()], effects=[model_call(other)]))
    await commit_step(database, step(run_id, 1, [started()], close=True))
    rows = await database.fetch("SELECT run_id FROM effects")
    assert [row["run_id"] for row in rows] == [other]


async def test_a_changed_byte_is_named(database: Database, superuser: Database) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started(), started()]))
    await superuser.write(
        "UPDATE events SET data = set_byte(data, 11, get_byte(data, 11) # 1) "
        "WHERE stream_id = $1 AND stream_version = 2",
        run_stream(run_id),
    )
    stored = await EventLog(database).read_stream(run_stream(run_id))
    findings = verify(stored)
    assert {finding.event_id for finding in findings} == {stored[1].id}
    assert "digest" in findings[0].problem


@pytest.mark.parametrize(
    "change",
    [
        "occurred_at = occurred_at + interval '1 second'",
        "metadata = jsonb_set(metadata, '{authid}', '\"somebody else\"')",
        "tenant_id = 'ten_other'",
        "event_type = 'run.completed'",
    ],
)
async def test_a_changed_attribute_is_named(database: Database, superuser: Database, change: str) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started()]))
    await superuser.write(f"UPDATE events SET {change} WHERE stream_id = $1", run_stream(run_id))
    assert verify(await EventLog(database).read_stream(run_stream(run_id))) != []


async def test_a_missing_version_is_named(database: Database, superuser: Database) -> None:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started(), started(), started()]))
    await superuser.write("DELETE FROM events WHERE stream_id = $1 AND stream_version = 2", run_stream(run_id))
    findings = verify(await EventLog(database).read_stream(run_stream(run_id)))
    assert [(finding.version, finding.event_id) for finding in findings] == [(2, None)]
