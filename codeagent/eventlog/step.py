"""Committing steps: facts, effects and what they settle, in one round trip and one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from codeagent.errors import Conflict
from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow, envelope_json
from codeagent.eventlog.late import note_late
from codeagent.eventlog.sealing import effect_place, outbox_place, sealed_request, sealed_value
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.commands import SubmitRun
from codeagent.messages.envelope import Envelope, Payload
from codeagent.subjects.key import SubjectKey


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
    versions from `expected_version + 1` on. `outbox_id` and `topic` announce them to the world; `messages` go to other
    runs. `key` seals what effects and messages say.
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
    messages: Sequence[OutboxRow] = ()
    key: SubjectKey | None = None


class Steps:
    """Commits steps. Those of different runs that come while one statement runs share the next one and its commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commits: Batcher[Step, bool] = Batcher(self._commit_many, most=100)

    async def commit(self, step: Step) -> None:
        """Commits durably, or changes nothing.

        Raises `Conflict` when the stream has moved, `OutcomeUnknown` when the connection died before the commit
        was confirmed, `Unavailable` when PostgreSQL is away.
        """
        if not await self._commits(step):
            raise Conflict(f"stream {step.stream_id} is not at version {step.expected_version}")

    async def _commit_many(self, steps: Sequence[Step]) -> Sequence[bool]:
        try:
            rows = await self._database.write(
                _COMMIT,
                *_of_steps(steps),
                *_of_events(steps),
                *_of_effects(steps),
                *_of_settled(steps),
                *_of_messages(steps),
            )
        except Conflict:
            if len(steps) == 1:
                return [False]
            # One of them meets something that is there already: alone, each is answered for itself.
            return [answer for step in steps for answer in await self._commit_many([step])]
        refused = set(rows[0][0])
        await note_late(self._database, (event for step in steps for event in step.events))
        return [place not in refused for place in range(1, len(steps) + 1)]


_COMMIT = f"SELECT commit_steps_v3({', '.join(f'${number}' for number in range(1, 45))})"


def _of_steps(steps: Sequence[Step]) -> list[list[Any]]:
    return [
        [step.stream_id for step in steps],
        [step.expected_version for step in steps],
        [len(step.events) for step in steps],
        [step.tenant_id for step in steps],
        [step.run_id for step in steps],
        [step.outbox_id for step in steps],
        [step.topic for step in steps],
        [step.cause.correlation_id for step in steps],
        [step.cause.id for step in steps],
        [step.cause.traceparent for step in steps],
        [step.handled for step in steps],
        [step.cancel_effects for step in steps],
        [step.close for step in steps],
        [None if step.key is None else step.key.id for step in steps],
    ]


def _of_events(steps: Sequence[Step]) -> list[list[Any]]:
    placed = [(place, event) for place, step in enumerate(steps, start=1) for event in step.events]
    return [
        [place for place, _ in placed],
        [event.version for _, event in placed],
        [event.id for _, event in placed],
        [event.type for _, event in placed],
        [event.schema_version for _, event in placed],
        [event.kept for _, event in placed],
        [event.data_digest for _, event in placed],
        [orjson.dumps(event.metadata).decode() for _, event in placed],
        [event.occurred_at for _, event in placed],
        [event.leaf_hash for _, event in placed],
        [event.key_id for _, event in placed],
        [event.sealed for _, event in placed],
        [event.sealed_digest for _, event in placed],
    ]


def _of_effects(steps: Sequence[Step]) -> list[list[Any]]:
    placed = [(place, step.key, effect) for place, step in enumerate(steps, start=1) for effect in step.effects]
    return [
        [place for place, _, _ in placed],
        [effect.id for _, _, effect in placed],
        [effect.kind for _, _, effect in placed],
        [effect.command.NAME for _, _, effect in placed],
        [effect.command.VERSION for _, _, effect in placed],
        [sealed_value(key, effect.command, effect_place(effect.id)) for _, key, effect in placed],
        [effect.due_at for _, _, effect in placed],
    ]


def _of_settled(steps: Sequence[Step]) -> list[list[Any]]:
    placed = [(place, effect_id) for place, step in enumerate(steps, start=1) for effect_id in step.settled]
    return [[place for place, _ in placed], [effect_id for _, effect_id in placed]]


def _of_messages(steps: Sequence[Step]) -> list[list[Any]]:
    placed = [(place, step.key, row) for place, step in enumerate(steps, start=1) for row in step.messages]
    begun = [row.data if isinstance(row.data, SubmitRun) else None for _, _, row in placed]
    return [
        [place for place, _, _ in placed],
        [row.id for _, _, row in placed],
        [row.topic for _, _, row in placed],
        [row.envelope.key for _, _, row in placed],
        [envelope_json(row.envelope) for _, _, row in placed],
        [sealed_value(key, row.data, outbox_place(row.id)) for _, key, row in placed],
        [None if run is None else sealed_request(key, run) for (_, key, _), run in zip(placed, begun, strict=True)],
        [None if run is None else run.fingerprint for run in begun],
    ]
