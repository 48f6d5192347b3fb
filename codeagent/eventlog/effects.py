"""The effects ledger as its performers see it: claim under a token, renew, record, give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import orjson

from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.late import note_late
from codeagent.eventlog.sealing import effect_place, outbox_place, sealed_value
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.catalog import decode_data
from codeagent.messages.envelope import Envelope, Message, Payload, to_headers
from codeagent.subjects.key import SubjectKey
from codeagent.subjects.keys import SubjectKeys


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to perform an effect, until the lease runs out. `attempt` counts claims, from 1; `memo` is what the
    claim before has left, where it could and had something to say; `key` seals what comes of it."""

    effect_id: UUID
    token: UUID
    attempt: int
    cancel_requested: bool
    memo: bytes | None = None
    key: SubjectKey | None = None


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message to our own agent worker: kept until the transaction that handles it removes it."""

    id: UUID
    topic: str
    envelope: Envelope
    data: Payload


class Verdict(StrEnum):
    """What became of an outcome."""

    RECORDED = "recorded"
    STALE = "stale"
    GONE = "gone"


class EffectsLedger:
    """One kind of effect, seen by one worker. `durable_claims` says whether a claim must survive a crash of
    PostgreSQL: needed where performing twice would show."""

    def __init__(
        self,
        database: Database,
        *,
        kind: str,
        owner: str,
        lease: timedelta,
        durable_claims: bool,
        new_token: Callable[[], UUID],
    ) -> None:
        self._database = database
        self._kind = kind
        self._owner = owner
        self._lease = lease
        self._durable = durable_claims
        self._new_token = new_token
        self._claims: Batcher[UUID, Claim | None] = Batcher(self._claim_many)
        self._records: Batcher[tuple[Claim, Sequence[StoredEvent], OutboxRow], Verdict] = Batcher(self._record_many)

    async def claim(self, effect_id: UUID) -> Claim | None:
        """None when another owner works on it, or its outcome is recorded, or the run went on without it."""
        return await self._claims(effect_id)

    async def _claim_many(self, effect_ids: Sequence[UUID]) -> Sequence[Claim | None]:
        distinct = list(dict.fromkeys(effect_ids))
        rows = await self._database.write(
            "SELECT * FROM claim_effects_v3($1, $2, $3, $4, $5)",
            distinct,
            [self._new_token() for _ in distinct],
            self._owner,
            self._lease,
            self._durable,
        )
        return await self._claims_of(rows, effect_ids)

    async def _claims_of(self, rows: Sequence[Row], effect_ids: Sequence[UUID]) -> Sequence[Claim | None]:
        keys = await self._keys(rows)
        claims = {row["id"]: claim_of(row, keys) for row in rows}
        return [claims.pop(effect_id, None) for effect_id in effect_ids]

    async def _keys(self, rows: Sequence[Row]) -> Mapping[str, SubjectKey]:
        named = {row["key_id"] for row in rows if row["key_id"] is not None}
        return await self._database.subjects.named(named) if named else {}

    async def _messages(self, rows: Sequence[Row]) -> Sequence[tuple[Claim, Message]]:
        keys = await self._keys(rows)
        return [(claim_of(row, keys), message) for row, message in await open_commands(self._database.subjects, rows)]

    async def claim_due(self, most: int, *, fresh: bool) -> Sequence[tuple[Claim, Message]]:
        """The oldest effects nobody works on: past due, or with `fresh` also those whose message may still come."""
        rows = await self._database.write(
            "SELECT * FROM claim_due_effects_v1($1, $2, $3, $4, $5)",
            self._kind,
            [self._new_token() for _ in range(most)],
            self._owner,
            self._lease,
            fresh,
        )
        return await self._messages(rows)

    async def renew(self, claims: Sequence[Claim]) -> dict[UUID, bool]:
        """Extends leases. Maps each effect still held to whether its cancel was asked for; the others are lost."""
        rows = await self._database.write(
            """WITH held AS (
                   SELECT e.id FROM effects e JOIN unnest($1::uuid[], $2::uuid[]) AS c (id, token)
                       ON e.id = c.id AND e.token = c.token
                   WHERE NOT e.recorded ORDER BY e.id FOR UPDATE OF e)
               UPDATE effects e SET due_at = clock_timestamp() + $3 FROM held WHERE e.id = held.id
               RETURNING e.id, e.cancel_requested""",
            [claim.effect_id for claim in claims],
            [claim.token for claim in claims],
            self._lease,
        )
        return {row["id"]: row["cancel_requested"] for row in rows}

    async def release(self, claims: Mapping[Claim, bytes | None]) -> None:
        """Gives effects back undone, each with a memo for its next claim, so that another worker takes them at once.
        The attempt is not counted."""
        await self._database.write(
            """UPDATE effects e
               SET token = NULL, owner = NULL, attempt = greatest(e.attempt - 1, 0), due_at = clock_timestamp(),
                   memo = coalesce(c.memo, e.memo)
               FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS c (id, token, memo)
               WHERE e.id = c.id AND e.token = c.token AND NOT e.recorded""",
            [claim.effect_id for claim in claims],
            [claim.token for claim in claims],
            list(claims.values()),
        )

    async def expire(
        self, claim: Claim, memo: bytes | None = None, rest: timedelta = timedelta(0), *, counted: bool = True
    ) -> None:
        """Ends a claim of ours: the effect is due after a `rest`, or at once where it is to stop, and until then it is
        nobody's. The attempt counts unless said. `memo` is for the next claim."""
        await self._database.write(
            """UPDATE effects SET due_at = clock_timestamp() + CASE WHEN cancel_requested THEN interval '0' ELSE $4 END,
                                  owner = NULL, attempt = greatest(attempt - $5, 0), memo = coalesce($3, memo)
               WHERE id = $1 AND token = $2 AND NOT recorded""",
            claim.effect_id,
            claim.token,
            memo,
            rest,
            0 if counted else 1,
        )

    async def hasten(self, run_id: str | None = None) -> int:
        """Makes due what rests although it is to stop, of one run or of all; returns how many effects that were."""
        rows = await self._database.write(
            """WITH resting AS (
                   SELECT id FROM effects
                   WHERE kind = $1 AND NOT recorded AND ($2::text IS NULL OR run_id = $2) AND cancel_requested
                         AND owner IS NULL AND token IS NOT NULL AND due_at > clock_timestamp()
                   ORDER BY id FOR UPDATE SKIP LOCKED)
               UPDATE effects e SET due_at = clock_timestamp() FROM resting r WHERE e.id = r.id RETURNING e.id""",
            self._kind,
            run_id,
        )
        return len(rows)

    async def recover(self) -> int:
        """Makes due what a dead process of this owner had claimed. Only where the owner's name is surely ours alone."""
        rows = await self._database.write(
            """UPDATE effects SET due_at = clock_timestamp()
               WHERE kind = $1 AND owner = $2 AND token IS NOT NULL AND NOT recorded RETURNING id""",
            self._kind,
            self._owner,
        )
        return len(rows)

    async def key_of(self, claim: Claim) -> SubjectKey | None:
        """The key that what comes of a claim is sealed with, as it is now: work may have taken long."""
        if claim.key is None:
            return None
        return (await self._database.subjects.named([claim.key.id]))[claim.key.id]

    async def record(self, claim: Claim, facts: Sequence[StoredEvent], answer: OutboxRow) -> Verdict:
        """Commits the outcome, durably and once: the facts to the effect's stream, which is new, the answer to the
        outbox. `facts`: at least one, of one stream, from version 1 on."""
        return await self._records((claim, facts, answer))

    async def _record_many(
        self, outcomes: Sequence[tuple[Claim, Sequence[StoredEvent], OutboxRow]]
    ) -> Sequence[Verdict]:
        told = [(place, fact) for place, (_, facts, _) in enumerate(outcomes, 1) for fact in facts]
        rows = await self._database.write(
            f"SELECT * FROM record_outcomes_v3({', '.join(f'${number}' for number in range(1, 23))})",  # noqa: S608
            [claim.effect_id for claim, _, _ in outcomes],
            [claim.token for claim, _, _ in outcomes],
            [facts[0].stream_id for _, facts, _ in outcomes],
            [facts[0].tenant_id for _, facts, _ in outcomes],
            [answer.id for _, _, answer in outcomes],
            [answer.topic for _, _, answer in outcomes],
            [answer.envelope.key for _, _, answer in outcomes],
            [envelope_json(answer.envelope) for _, _, answer in outcomes],
            [sealed_value(claim.key, answer.data, outbox_place(answer.id)) for claim, _, answer in outcomes],
            [place for place, _ in told],
            [fact.version for _, fact in told],
            [fact.id for _, fact in told],
            [fact.type for _, fact in told],
            [fact.schema_version for _, fact in told],
            [fact.kept for _, fact in told],
            [fact.data_digest for _, fact in told],
            [orjson.dumps(fact.metadata).decode() for _, fact in told],
            [fact.occurred_at for _, fact in told],
            [fact.leaf_hash for _, fact in told],
            [fact.key_id for _, fact in told],
            [fact.sealed for _, fact in told],
            [fact.sealed_digest for _, fact in told],
        )
        await note_late(self._database, (fact for _, fact in told))
        return [Verdict(row["verdict"]) for row in rows]


def claim_of(row: Row, keys: Mapping[str, SubjectKey]) -> Claim:
    key = keys.get(row["key_id"]) if row["key_id"] is not None else None
    return Claim(row["id"], row["token"], row["attempt"], row["cancel_requested"], row["memo"], key)


async def open_commands(keys: SubjectKeys, rows: Sequence[Row]) -> list[tuple[Row, Message]]:
    """The commands of effects rows, each under its row's own id; without those that were erased or cannot be opened."""
    opened = await keys.open_readable({effect_place(row["id"]): row["command"] for row in rows})
    found = ((row, opened[effect_place(row["id"])]) for row in rows)
    return [(row, _command_message(row, command)) for row, command in found if command is not None]


def _command_message(row: Row, command: bytes) -> Message:
    data = decode_data(row["name"], row["version"], command)
    return Message(effect_envelope(row["id"], row["run_id"], row["tenant_id"], data, _cause(row)), data)


@dataclass(frozen=True, slots=True)
class Cause:
    correlation_id: UUID
    causation_id: UUID
    traceparent: str | None
    time: datetime


def _cause(row: Row) -> Cause:
    return Cause(row["correlation_id"], row["causation_id"], row["traceparent"], row["created_at"])


def effect_envelope(effect_id: UUID, run_id: str, tenant_id: str, data: Payload, cause: Cause) -> Envelope:
    return Envelope(
        id=effect_id,
        name=data.NAME,
        version=data.VERSION,
        source=f"/tenants/{tenant_id}/runs/{run_id}",
        time=cause.time,
        tenant_id=tenant_id,
        key=run_id,
        correlation_id=cause.correlation_id,
        causation_id=cause.causation_id,
        traceparent=cause.traceparent,
    )


def envelope_json(envelope: Envelope) -> str:
    """An envelope as the outbox keeps it: the record headers, by name."""
    return orjson.dumps({name: value.decode() for name, value in to_headers(envelope)}).decode()
