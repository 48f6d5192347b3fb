"""Steps to commit, made by hand: no agent is needed to test what keeps its facts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.step import EffectRow, Step, Steps
from codeagent.eventlog.stored import StoredEvent, metadata_for, prepare
from codeagent.messages import commands, events
from codeagent.messages.conversation import Usage
from codeagent.messages.envelope import Envelope, Event
from codeagent.messages.ids import run_stream, typed_id
from codeagent.messages.values import ApprovalRequest, GitSource, RunLimits
from codeagent.subjects.key import SubjectKey

TENANT = "ten_test"
APPROVAL = typed_id("apr", UUID(int=1))


def new_run() -> str:
    return typed_id("run", clock.new_uuid())


def cause(run_id: str, tenant: str = TENANT) -> Envelope:
    command_id = clock.new_uuid()
    return Envelope(
        id=command_id,
        name="run.submit",
        version=1,
        source="/test",
        time=clock.now(),
        tenant_id=tenant,
        key=run_id,
        correlation_id=command_id,
    )


def prepared(
    run_id: str, after: int, facts: Sequence[Event], envelope: Envelope, key: SubjectKey | None = None
) -> list[StoredEvent]:
    return [
        prepare(
            fact,
            stream_id=run_stream(run_id),
            version=after + number,
            event_id=clock.new_uuid(),
            tenant_id=envelope.tenant_id,
            occurred_at=clock.now(),
            metadata=metadata_for(envelope, run_id),
            key=key,
        )
        for number, fact in enumerate(facts, start=1)
    ]


def step(
    run_id: str,
    expected: int,
    facts: Sequence[Event] = (),
    *,
    effects: Sequence[EffectRow] = (),
    settled: Sequence[UUID] = (),
    handled: UUID | None = None,
    cancel_effects: bool = False,
    close: bool = False,
    tenant: str = TENANT,
) -> Step:
    envelope = cause(run_id, tenant)
    return Step(
        run_id=run_id,
        stream_id=run_stream(run_id),
        expected_version=expected,
        tenant_id=tenant,
        cause=envelope,
        events=prepared(run_id, expected, facts, envelope),
        outbox_id=clock.new_uuid(),
        topic="codeagent.run.events.v1",
        effects=effects,
        settled=settled,
        handled=handled,
        cancel_effects=cancel_effects,
        close=close,
    )


async def commit_step(database: Database, wanted: Step) -> None:
    """Alone: nothing shares its statement."""
    await Steps(database).commit(wanted)


def started() -> Event:
    return events.RunStarted(attempt=1)


def submitted(run_id: str) -> Event:
    """Of a repository that nobody fetches here."""
    return events.RunSubmitted(
        run_id=run_id,
        task="Make it work.",
        source=GitSource(url="https://git.example.org/team/shop.git", ref="HEAD"),
        agent="coder",
        agent_version=1,
        model="builtin/repair",
        limits=RunLimits(),
        fingerprint="f",
        principal="usr_1",
        deadline_at=clock.now(),
    )


def failed() -> Event:
    return events.RunFailed(status_reason="internal_error", message="", steps=0, usage=Usage(), cost_usd=Decimal(0))


def waiting(approval_id: str = APPROVAL, seconds: float = 3600) -> events.InputRequired:
    """The run asks whether it may run a command."""
    now = clock.now()
    request = ApprovalRequest(
        approval_id=approval_id,
        tool_call_id="call_1",
        tool="shell",
        arguments='{"command": "make"}',
        arguments_digest="sha256:" + "a" * 64,
        reason="The run asks before each call of shell.",
        requested_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )
    return events.InputRequired(request=request)


def model_call(run_id: str) -> EffectRow:
    effect_id = clock.new_uuid()
    command = commands.GenerateReply(
        effect_id=effect_id, run_id=run_id, at_version=1, model="test/model", max_output_tokens=100
    )
    return EffectRow(effect_id, "provider", command)
