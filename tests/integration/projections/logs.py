"""Logs of runs that used something, written straight into a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.follower import LogFollower
from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.messages import events
from codeagent.messages.calls import CallEnded, ModelAttempt, ModelSwitched
from codeagent.messages.conversation import Usage
from codeagent.messages.envelope import Event
from codeagent.messages.ids import call_stream, exec_stream, parse_typed_id, run_stream, typed_id
from codeagent.messages.values import ArchiveSource, Outcome, RunLimits
from codeagent.subjects.key import SubjectKey

TENANT = "ten_test"
DAY = date(2026, 11, 23)


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def submitted(
    run_id: str, principal: str, model: str, max_cost_usd: Decimal | None = None, **more: Any
) -> events.RunSubmitted:
    said = {"agent": "coder", "agent_version": 1, **more}
    return events.RunSubmitted(
        run_id=run_id,
        task="t",
        source=ArchiveSource(digest=f"sha256:{'0' * 64}"),
        model=model,
        limits=RunLimits(max_cost_usd=max_cost_usd),
        fingerprint="f",
        principal=principal,
        deadline_at=noon(DAY) + timedelta(hours=1),
        **said,
    )


def call(
    run_id: str,
    model: str = "test/model",
    usage: Usage | None = None,
    cost: str | None = "0.10",
    outcome: Outcome = Outcome.DONE,
    attempts: tuple[ModelAttempt, ...] | None = None,
) -> CallEnded:
    return CallEnded(
        effect_id=clock.new_uuid(),
        run_id=run_id,
        attempt=1,
        outcome=outcome,
        model=model,
        usage=usage or Usage(input_tokens=100, output_tokens=10),
        cost_usd=None if cost is None else Decimal(cost),
        duration_seconds=1.0,
        attempts=attempts,
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
    """One event of a run, and the day on which it happened, so many seconds after noon; what is personal in it is sealed
    with `key`."""

    run_id: str
    event: Event
    day: date = DAY
    tenant_id: str = TENANT
    seconds: float = 0.0
    key: SubjectKey | None = None

    @property
    def stream_id(self) -> str:
        if isinstance(self.event, CallEnded | ModelSwitched):
            return call_stream(self.event.effect_id)
        if isinstance(self.event, events.ExecEnded):
            return exec_stream(self.event.effect_id)
        return run_stream(self.run_id)

    def stored(self, version: int) -> StoredEvent:
        return prepare(
            self.event,
            stream_id=self.stream_id,
            version=version,
            event_id=clock.new_uuid(),
            tenant_id=self.tenant_id,
            occurred_at=noon(self.day) + timedelta(seconds=self.seconds),
            metadata={"runid": self.run_id, "correlationid": str(parse_typed_id("run", self.run_id))},
            key=self.key,
        )


async def write(database: Database, log: Sequence[Happened]) -> None:
    """Appends events, each in a transaction of its own."""
    for stored in in_order(log):
        await append(database, stored)


async def write_at_once(database: Database, log: Sequence[Happened]) -> None:
    """Appends many events, in one transaction. Streams begin with the first of their events."""
    async with database.transaction() as connection:
        await connection.executemany(_APPEND, [_values(stored) for stored in in_order(log)])


async def copy(database: Database, log: Iterable[StoredEvent], most: int = 5_000) -> None:
    """Appends as many events as there may be, in transactions of at most `most`."""
    columns = [name.strip() for name in _APPEND.partition("(")[2].partition(")")[0].replace("\n", "").split(",")]
    coming = iter(log)
    async with database.session() as session:
        while page := [*map(_values, islice(coming, most))]:
            await session.copy_records_to_table("events", records=page, columns=columns)


def in_order(log: Iterable[Happened]) -> Iterator[StoredEvent]:
    """Streams begin with the first of their events."""
    versions: dict[str, int] = {}
    for happened in log:
        version = versions[happened.stream_id] = versions.get(happened.stream_id, 0) + 1
        yield happened.stored(version)


async def caught_up(database: Database, follower: LogFollower, most: int = 500) -> None:
    """Until nothing is left to read, whatever the server's own transactions hold back for a moment."""
    newest = "SELECT global_position FROM events ORDER BY transaction_id DESC, global_position DESC LIMIT 1"
    [row] = await database.fetch(newest)
    now = asyncio.get_running_loop().time
    async with asyncio.timeout_at(now() + 30) as patience:
        while await _place(database, follower.NAME) != row[0]:
            if await follower.catch_up(most):
                patience.reschedule(now() + 30)
            else:
                await asyncio.sleep(0.005)


async def _place(database: Database, name: str) -> int | None:
    rows = await database.fetch("SELECT global_position FROM projections WHERE name = $1", name)
    return rows[0][0] if rows else None


_APPEND = """INSERT INTO events (stream_id, stream_version, event_id, event_type, schema_version, tenant_id, data,
                                 data_digest, metadata, occurred_at, leaf_hash, key_id, sealed, sealed_digest)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11, $12, $13, $14)"""


async def append(database: Database, stored: StoredEvent) -> None:
    await database.write(_APPEND, *_values(stored))


def _values(stored: StoredEvent) -> tuple[object, ...]:
    return (
        stored.stream_id,
        stored.version,
        stored.id,
        stored.type,
        stored.schema_version,
        stored.tenant_id,
        stored.kept,
        stored.data_digest,
        json.dumps(dict(stored.metadata)),
        stored.occurred_at,
        stored.leaf_hash,
        stored.key_id,
        stored.sealed,
        stored.sealed_digest,
    )
