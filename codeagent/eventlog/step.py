"""Committing a step: facts, effects and what they settle, in one round trip and one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from codeagent.eventlog.database import Database
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.catalog import encode_data
from codeagent.messages.envelope import Envelope, Payload

_COMMIT = """SELECT commit_step_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24, $25, $26, $27)"""


@dataclass(frozen=True, slots=True)
class EffectRow:
    """A row of the effects ledger to be: its command goes out under the row's id."""

    id: UUID
    kind: str
    command: Payload
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one message leads to, ready to commit.

    `cause` is the handled message's envelope; `handled` its outbox row, where it has one. `events` carry
    versions from `expected_version + 1` on. `outbox_id` and `topic` announce them to the world.
    """

    run_id: str
    stream_id: str
    expected_version: int
    tenant_id: str
    cause: Envelope
    events: Sequence[StoredEvent]
    outbox_id: UUID
    topic: str
    effects: Sequence[EffectRow] = ()
    settled: Sequence[UUID] = ()
    handled: UUID | None = None
    cancel_effects: bool = False
    close: bool = False


def _event_arrays(events: Sequence[StoredEvent]) -> list[list[Any]]:
    return [
        [event.id for event in events],
        [event.type for event in events],
        [event.schema_version for event in events],
        [event.data for event in events],
        [event.data_digest for event in events],
        [orjson.dumps(event.metadata).decode() for event in events],
        [event.occurred_at for event in events],
        [event.leaf_hash for event in events],
    ]


async def commit_step(database: Database, step: Step) -> None:
    """Commits durably, or changes nothing.

    Raises `Conflict` when the stream has moved, `OutcomeUnknown` when the connection died before the commit
    was confirmed, `Unavailable` when PostgreSQL is away.
    """
    await database.write(
        _COMMIT,
        step.stream_id,
        step.expected_version,
        step.tenant_id,
        *_event_arrays(step.events),
        step.run_id,
        step.outbox_id,
        step.topic,
        step.cause.correlation_id,
        step.cause.id,
        step.cause.traceparent,
        [effect.id for effect in step.effects],
        [effect.kind for effect in step.effects],
        [effect.command.NAME for effect in step.effects],
        [effect.command.VERSION for effect in step.effects],
        [encode_data(effect.command) for effect in step.effects],
        [effect.due_at for effect in step.effects],
        list(step.settled),
        step.handled,
        step.cancel_effects,
        step.close,
    )
