"""What runs say about the versions of their agents: folded from the log once, and read exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from codeagent import clock
from codeagent.eventlog.database import Connection, Database
from codeagent.eventlog.log import Cursor, EventLog
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages import events
from codeagent.messages.conversation import FinishReason, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.values import ApprovalDecision, ApprovalRequest, Outcome
from codeagent.projections.agent_runs import AgentRunsProjector
from codeagent.projections.agent_statistics import VersionQuery, VersionStatistics, version_statistics
from tests.integration.projections.logs import (
    DAY,
    TENANT,
    Happened,
    call,
    caught_up,
    new_run_id,
    noon,
    submitted,
    write,
)

MODEL = "test/model"


async def fold(database: Database, most: int = 500) -> None:
    await caught_up(database, AgentRunsProjector(database, EventLog(database)), most)


async def rows_of(database: Database) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await database.fetch("SELECT * FROM agent_runs ORDER BY run_id")]


async def statistics(database: Database, agent: str = "reader", **more: Any) -> Sequence[VersionStatistics]:
    days = {"first": DAY - timedelta(days=9), "last": DAY + timedelta(days=9), **more}
    return await version_statistics(database, TENANT, VersionQuery(agent, **days), 50)


def message() -> events.MessageCompleted:
    return events.MessageCompleted(
        effect_id=clock.new_uuid(), step=1, attempt=1, text="", finish_reason=FinishReason.STOP, model=MODEL, usage=Usage()
    )  # fmt: skip


def tool(reason: str) -> events.ToolCallCompleted:
    return events.ToolCallCompleted(
        tool_call_id="c", name="shell", step=1, effect_id=clock.new_uuid(), attempt=1, output="", reason=reason,
        checkpoint="",
    )  # fmt: skip


def refused(code: str) -> events.ToolCallFailed:
    return events.ToolCallFailed(tool_call_id="c", name="shell", step=1, code=code, error="")


def asked() -> events.InputRequired:
    request = ApprovalRequest(
        approval_id="apr", tool_call_id="c", tool="shell", arguments="{}", arguments_digest="", reason="",
        requested_at=noon(DAY), expires_at=noon(DAY),
    )  # fmt: skip
    return events.InputRequired(request=request)


def rejected() -> events.InputReceived:
    return events.InputReceived(approval_id="apr", decision=ApprovalDecision.REJECT, principal="usr_1")


def resumed() -> events.RunResumed:
    return events.RunResumed(deadline_at=noon(DAY))


def one_run(version: int, end: Event | None, *middle: tuple[float, Event], seconds: float = 60.0) -> list[Happened]:
    """A run of `reader` that ends after so many seconds; those of the events between are counted from its beginning."""
    run_id = new_run_id()
    order = submitted(run_id, "usr_1", MODEL, agent="reader", agent_version=version)
    log = [(0.0, order), *middle, *([] if end is None else [(seconds, end)])]
    return [Happened(run_id, event, seconds=at) for at, event in log]


async def test_a_run_is_counted_for_its_version_with_all_that_it_used(database: Database) -> None:
    run_id = new_run_id()
    order = submitted(run_id, "usr_1", MODEL, agent="reader", agent_version=3)
    story: list[tuple[float, Event]] = [
        (0, order),
        (1, call(run_id, usage=Usage(input_tokens=100, output_tokens=10))),
        (1, message()),
        (2, tool("exit")),
        (3, tool("timeout")),
        (3, refused("invalid_arguments")),
        (10, asked()),
        (40, rejected()),
        (40, refused("approval_rejected")),
        (40, resumed()),
        (30, call(run_id, usage=Usage(), cost="0", attempts=()).model_copy(update={"cached": True})),
        (41, call(run_id, cost=None, outcome=Outcome.FAILED, usage=Usage(input_tokens=5))),
        (50, events.RunCompleted()),
        (90, call(run_id, cost="2", usage=Usage(output_tokens=1))),
    ]
    await write(database, [Happened(run_id, event, seconds=at) for at, event in story])
    await fold(database)
    [found] = await statistics(database)
    assert found == VersionStatistics(
        version=3, runs=1, open=0, succeeded=1, failed=0, canceled=0, excused=0, steps=1, calls=4, cached_calls=1, unpriced_calls=1,
        input_tokens=105, output_tokens=11, cost_usd=Decimal("2.10"), tool_calls=4, tool_failures=2, approvals_asked=1,
        approvals_rejected=1, approvals_expired=0, working_ms_p50=20_000, working_ms_p95=20_000, cost_usd_p50=None,
        cost_usd_p95=None,
    )  # fmt: skip


async def test_time_in_which_a_person_let_a_run_wait_for_ever_is_not_the_versions(database: Database) -> None:
    expired = events.RunFailed(status_reason="approval_expired")
    middle = ((5, asked()), (900, events.InputExpired(approval_id="apr")))
    await write(database, one_run(1, expired, *middle, seconds=900))
    await fold(database)
    [[outcome, worked, lapsed]] = await database.fetch("SELECT outcome, working_ms, approvals_expired FROM agent_runs")
    assert (outcome, worked, lapsed) == ("excused", 5_000, 1)


async def test_percentiles_are_those_of_the_runs_that_count(database: Database) -> None:
    log = [
        happened for second in range(1, 101) for happened in one_run(1, events.RunCompleted(), seconds=float(second))
    ]
    for end in (events.RunCanceled(), events.RunFailed(status_reason="worker_lost"), None):
        log += one_run(1, end, seconds=9_999)
    log += one_run(2, events.RunFailed(status_reason="max_turns_exceeded"), seconds=7)
    await write(database, log)
    await fold(database)
    newest, first = await statistics(database)
    assert (first.working_ms_p50, first.working_ms_p95, first.success_rate) == (50_000, 95_000, 1.0)
    assert (first.runs, first.open, first.succeeded, first.canceled, first.excused) == (103, 1, 100, 1, 1)
    assert (newest.version, newest.failed, newest.success_rate, newest.working_ms_p95) == (2, 1, 0.0, 7_000)


async def test_a_window_has_the_runs_that_were_submitted_on_its_days(database: Database) -> None:
    for day in (DAY - timedelta(days=1), DAY):
        run_id = new_run_id()
        order = submitted(run_id, "usr_1", MODEL, agent="reader")
        await write(database, [Happened(run_id, order, day)])
    await fold(database)
    assert [found.runs for found in await statistics(database)] == [2]
    assert [found.runs for found in await statistics(database, last=DAY - timedelta(days=1))] == [1]
    assert [found.runs for found in await statistics(database, first=DAY)] == [1]
    assert list(await statistics(database, version=2)) == []
    assert list(await statistics(database, agent="coder")) == []


class Dies(AgentRunsProjector):
    """Fails after it has written its rows, before its place is committed."""

    async def take(self, connection: Connection, page: Sequence[StoredEvent]) -> None:
        await super().take(connection, page)
        raise RuntimeError


async def test_rows_are_the_same_whoever_dies_however_many_fold_and_when_they_are_made_anew(
    database: Database,
) -> None:
    failed = events.RunFailed(status_reason="max_turns_exceeded")
    middle = ((1, message()), (2, asked()), (9, rejected()), (9, resumed()), (10, tool("oom")))
    await write(database, [happened for _ in range(4) for happened in one_run(1, failed, *middle)])
    log = EventLog(database)
    async with asyncio.timeout(20):
        while not await log.read_all(Cursor(), 1):
            await asyncio.sleep(0.005)
    with pytest.raises(RuntimeError):
        await Dies(database, log).catch_up()
    assert await rows_of(database) == []
    await asyncio.gather(*(fold(database, 3) for _ in range(4)))
    once = await rows_of(database)
    [found] = await statistics(database)
    assert (found.failed, found.steps, found.tool_failures, found.approvals_rejected) == (4, 4, 4, 4)
    async with database.transaction() as connection:
        await connection.execute("TRUNCATE agent_runs")
        await connection.execute("DELETE FROM projections WHERE name = 'agent_runs'")
    await fold(database)
    assert await rows_of(database) == once
