"""The audit as a projection: folded from the log once, and the same when it is folded again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from uuid import UUID

import pytest

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, ControlPlane
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.identity.refusals import Refusal, Refusals
from codeagent.messages import values
from codeagent.messages.events import ExecEnded, InputExpired, InputReceived
from codeagent.messages.identity_events import LoginFailed, TenantSuspended, UserCreated
from codeagent.messages.ids import call_stream, exec_stream, mcp_stream, user_stream
from codeagent.projections.audit import AuditProjector, Outcome, audit_row
from tests.integration.eventlog.steps import APPROVAL, TENANT, commit_step, new_run, started, step, waiting
from tests.integration.projections.logs import call, execution


def executed(outcome: values.Outcome) -> ExecEnded:
    return execution("run_1").model_copy(update={"outcome": outcome, "exit_code": 1})


def answered(decision: values.ApprovalDecision) -> InputReceived:
    return InputReceived(approval_id=APPROVAL, decision=decision, comment="why", principal="usr_1")


def happened(fact: object, stream: str, metadata: Mapping[str, str] = MappingProxyType({})) -> StoredEvent:
    return prepare(
        fact,  # type: ignore[arg-type]  # one of several
        stream_id=stream,
        version=1,
        event_id=clock.new_uuid(),
        tenant_id=TENANT,
        occurred_at=clock.now(),
        metadata={"correlationid": str(clock.new_uuid()), **metadata},
    )


EVERYTHING = "SELECT * FROM audit_events ORDER BY event_id"


async def change_users(database: Database, count: int) -> None:
    control = ControlPlane(database)
    for number in range(count):
        by = Author(TENANT, "app_user", "usr_admin", clock.new_uuid(), address="192.0.2.7")
        async with control.change(by) as change:
            fact = UserCreated(user_id=f"usr_{number}", role="viewer")
            await change.record(user_stream(f"usr_{number}"), 1, fact)


async def folded(database: Database, projector: AuditProjector, page: int = 500) -> list[object]:
    while await projector.catch_up(page):
        pass
    return list(await database.fetch(EVERYTHING))


async def test_it_holds_acts_and_not_the_steps_of_runs(database: Database) -> None:
    await change_users(database, 2)
    await commit_step(database, step(new_run(), 0, [started()]))
    rows = await folded(database, AuditProjector(database, EventLog(database)))
    assert [(row["actor_id"], row["action"], row["resource_kind"], row["resource_id"]) for row in rows] == [
        ("usr_admin", "user.created", "user", "usr_0"),
        ("usr_admin", "user.created", "user", "usr_1"),
    ]


async def test_built_anew_in_pages_of_another_size_it_is_the_same(database: Database) -> None:
    await change_users(database, 7)
    projector = AuditProjector(database, EventLog(database))
    before = await folded(database, projector)
    await database.write("DELETE FROM audit_events")
    await database.write("DELETE FROM projections WHERE name = 'audit'")
    assert await folded(database, projector, 2) == before
    await database.write("DELETE FROM projections WHERE name = 'audit'")
    assert await folded(database, projector, 3) == before  # read twice, there once


async def test_of_two_projectors_one_works(database: Database) -> None:
    await change_users(database, 5)
    two = [AuditProjector(database, EventLog(database)) for _ in range(2)]
    for _ in range(5):
        await asyncio.gather(*(projector.catch_up(2) for projector in two))
    assert len(await database.fetch(EVERYTHING)) == 5


@pytest.mark.parametrize("stream", [call_stream, exec_stream, mcp_stream])
def test_what_was_done_for_a_run_is_found_by_the_run(stream: Callable[[UUID], str]) -> None:
    event = happened(call("run_1"), stream(UUID(int=1)), {"runid": "run_1"})
    row = audit_row(event)
    assert row is not None
    assert (row.resource_kind, row.resource_id) == (event.stream_id.partition("-")[0], "run_1")


@pytest.mark.parametrize(
    ("fact", "stream", "outcome"),
    [
        (LoginFailed(user_id="usr_1", client_id="cli", reason="wrong_password"), "user-usr_1", Outcome.FAILURE),
        (TenantSuspended(tenant_id="ten_1"), "tenant-ten_1", Outcome.SUCCESS),
        (started(), "run-run_1", None),
        (waiting(), "run-run_1", Outcome.SUCCESS),
        (answered(values.ApprovalDecision.ALLOW_ONCE), "run-run_1", Outcome.SUCCESS),
        (answered(values.ApprovalDecision.REJECT), "run-run_1", Outcome.DENIED),
        (InputExpired(approval_id=APPROVAL), "run-run_1", Outcome.FAILURE),
        (call("run_1"), call_stream(UUID(int=1)), Outcome.SUCCESS),
        (call("run_1", outcome=values.Outcome.FAILED), call_stream(UUID(int=1)), Outcome.FAILURE),
        (executed(values.Outcome.DONE), exec_stream(UUID(int=1)), Outcome.SUCCESS),
        (executed(values.Outcome.CANCELED), exec_stream(UUID(int=1)), Outcome.SUCCESS),
        (executed(values.Outcome.WORKER_LOST), exec_stream(UUID(int=1)), Outcome.FAILURE),
    ],
)
def test_what_a_fact_is_to_the_audit(fact: object, stream: str, outcome: Outcome | None) -> None:
    row = audit_row(happened(fact, stream))
    assert (None if row is None else row.outcome) == outcome


async def test_more_kinds_of_refusals_than_are_kept_are_not_written(database: Database, database_url: str) -> None:
    walled = Database(database_url, connections=1, role=EDGE_ROLE)
    refusals = Refusals(walled, most=3)
    for number in range(10):
        refusals.note(Refusal(TENANT, "api_key", "usr_1", f"key_{number}", "insufficient_scope"), None)
    await refusals.start()
    await refusals.stop()
    await walled.close()
    assert len(await database.fetch("SELECT 1 FROM events WHERE event_type = 'access.refused'")) == 3
