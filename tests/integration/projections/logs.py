"""Logs of runs that used something, written straight into a database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.messages import events
from codeagent.messages.conversation import Usage
from codeagent.messages.envelope import Event
from codeagent.messages.ids import call_stream, exec_stream, run_stream, typed_id
from codeagent.messages.values import ArchiveSource, Outcome, RunLimits

TENANT = "ten_test"
DAY = date(2026, 11, 23)


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def submitted(run_id: str, principal: str, model: str, max_cost_usd: Decimal | None = None) -> events.RunSubmitted:
    return events.RunSubmitted(
        run_id=run_id,
        task="t",
        source=ArchiveSource(digest=f"sha256:{'0' * 64}"),
        agent="coder",
        agent_version=1,
        model=model,
        limits=RunLimits(max_cost_usd=max_cost_usd),
        fingerprint="f",
        principal=principal,
        deadline_at=noon(DAY) + timedelta(hours=1),
    )


def call(
    run_id: str,
    model: str = "test/model",
    usage: Usage | None = None,
    cost: str | None = "0.10",
    outcome: Outcome = Outcome.DONE,
) -> events.CallEnded:
    return events.CallEnded(
        effect_id=clock.new_uuid(),
        run_id=run_id,
        attempt=1,
        outcome=outcome,
        model=model,
        usage=usage or Usage(input_tokens=100, output_tokens=10),
        cost_usd=None if cost is None else Decimal(cost),
        duration_seconds=1.0,
    )


def execution(run_id: str, wall_seconds: float = 1.5) -> events.ExecEnded:
    return events.ExecEnded(
        effect_id=clock.new_uuid(),
        run_id=run_id,
        attempt=1,
        outcome=Outcome.DONE,
        operation="tool",
        reason="exited",
        driver="scripted",
        level=1,
        wall_seconds=wall_seconds,
        duration_seconds=2.0,
    )


def new_run_id() -> str:
    return typed_id("run", clock.new_uuid())


@dataclass(frozen=True)
class Happened:
    """One event of a run, and the day on which it happened."""

    run_id: str
    event: Event
    day: date = DAY
    tenant_id: str = TENANT

    def stored(self, version: int) -> StoredEvent:
        if isinstance(self.event, events.CallEnded):
            stream_id, version = call_stream(self.event.effect_id), 1
        elif isinstance(self.event, events.ExecEnded):
            stream_id, version = exec_stream(self.event.effect_id), 1
        else:
            stream_id = run_stream(self.run_id)
        return prepare(
            self.event,
            stream_id=stream_id,
            version=version,
            event_id=clock.new_uuid(),
            tenant_id=self.tenant_id,
            occurred_at=noon(self.day),
            metadata={"runid": self.run_id, "correlationid": str(clock.new_uuid())},
        )


async def write(database: Database, log: Sequence[Happened]) -> None:
    """Appends events, each in a transaction of its own."""
    versions: dict[str, int] = {}
    for happened in log:
        stored = happened.stored(versions.get(happened.run_id, 0) + 1)
        if stored.stream_id == run_stream(happened.run_id):
            versions[happened.run_id] = stored.version
        await append(database, stored)


async def append(database: Database, stored: StoredEvent) -> None:
    await database.write(
        """INSERT INTO events (stream_id, stream_version, event_id, event_type, schema_version, tenant_id, data,
                               data_digest, metadata, occurred_at, leaf_hash)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11)""",
        stored.stream_id,
        stored.version,
        stored.id,
        stored.type,
        stored.schema_version,
        stored.tenant_id,
        stored.data,
        stored.data_digest,
        json.dumps(dict(stored.metadata)),
        stored.occurred_at,
        stored.leaf_hash,
    )
