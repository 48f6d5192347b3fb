"""The effects ledger: one owner at a time, one outcome, and nothing forgotten."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim, EffectsLedger, OutboxRow, Verdict
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.stored import StoredEvent, metadata_for, prepare
from codeagent.eventlog.verify import verify
from codeagent.messages import results
from codeagent.messages.calls import CallEnded
from codeagent.messages.conversation import Usage
from codeagent.messages.ids import call_stream
from codeagent.messages.values import Outcome
from tests.integration.eventlog.steps import TENANT, cause, commit_step, model_call, new_run, started, step


def ledger(database: Database, owner: str = "a", *, lease: float = 30.0, durable: bool = True) -> EffectsLedger:
    return EffectsLedger(
        database,
        kind="provider",
        owner=owner,
        lease=timedelta(seconds=lease),
        durable_claims=durable,
        new_token=clock.new_uuid,
    )


async def asked(database: Database) -> tuple[str, UUID]:
    """A run that waits for one model call."""
    run_id = new_run()
    effect = model_call(run_id)
    await commit_step(database, step(run_id, 0, [started()], effects=[effect]))
    return run_id, effect.id


def outcome(run_id: str, claim: Claim, facts: int = 1) -> tuple[list[StoredEvent], OutboxRow]:
    envelope = cause(run_id)
    fact = CallEnded(
        effect_id=claim.effect_id,
        run_id=run_id,
        attempt=claim.attempt,
        outcome=Outcome.DONE,
        model="m",
        usage=Usage(),
        duration_seconds=0.1,
    )
    answer = results.ProviderResult(
        effect_id=claim.effect_id, run_id=run_id, attempt=claim.attempt, outcome=Outcome.DONE
    )
    stored = [
        prepare(
            fact,
            stream_id=call_stream(claim.effect_id),
            version=version,
            event_id=clock.new_uuid(),
            tenant_id=TENANT,
            occurred_at=clock.now(),
            metadata=metadata_for(envelope, run_id),
        )
        for version in range(1, facts + 1)
    ]
    return stored, OutboxRow(envelope.id, "codeagent.provider.events.v1", envelope, answer)


async def test_of_many_claimants_one_gets_the_effect(database: Database) -> None:
    _, effect_id = await asked(database)
    claims = await asyncio.gather(*(ledger(database, str(number)).claim(effect_id) for number in range(16)))
    won = [claim for claim in claims if claim is not None]
    assert len(won) == 1
    assert won[0].attempt == 1


@pytest.mark.parametrize("durable", [True, False])
async def test_a_lost_lease_is_taken_over_with_a_new_token_and_attempt(database: Database, durable: bool) -> None:
    _, effect_id = await asked(database)
    first = await ledger(database, "a", lease=0.0, durable=durable).claim(effect_id)
    second = await ledger(database, "b", durable=durable).claim(effect_id)
    assert first is not None
    assert second is not None
    assert (second.attempt, second.token != first.token) == (2, True)


async def test_an_outcome_is_recorded_once_and_under_the_token_that_holds(database: Database) -> None:
    run_id, effect_id = await asked(database)
    first = await ledger(database, "a", lease=0.0).claim(effect_id)
    second = await ledger(database, "b").claim(effect_id)
    assert first is not None
    assert second is not None
    assert await ledger(database).record(first, *outcome(run_id, first)) is Verdict.STALE
    assert await ledger(database).record(second, *outcome(run_id, second)) is Verdict.RECORDED
    assert await ledger(database).record(second, *outcome(run_id, second)) is Verdict.STALE
    stored = await EventLog(database).read_stream(call_stream(effect_id))
    assert [event.version for event in stored] == [1]


async def test_a_recorded_effect_is_not_claimed_again_and_its_answer_waits_in_the_outbox(database: Database) -> None:
    run_id, effect_id = await asked(database)
    claim = await ledger(database).claim(effect_id)
    assert claim is not None
    await ledger(database).record(claim, *outcome(run_id, claim))
    assert await ledger(database, "b").claim(effect_id) is None
    assert await ledger(database, "b").claim_due(10, fresh=True) == []
    rows = await database.fetch("SELECT topic FROM outbox WHERE value IS NOT NULL")
    assert [row["topic"] for row in rows] == ["codeagent.provider.events.v1"]


async def test_an_outcome_that_comes_after_the_run_ended_is_kept_as_a_fact_and_answered_to_nobody(
    database: Database,
) -> None:
    run_id, effect_id = await asked(database)
    claim = await ledger(database).claim(effect_id)
    assert claim is not None
    await commit_step(database, step(run_id, 1, [started()], close=True))
    assert await ledger(database).record(claim, *outcome(run_id, claim)) is Verdict.GONE
    assert len(await EventLog(database).read_stream(call_stream(effect_id))) == 1
    assert await database.fetch("SELECT id FROM outbox WHERE value IS NOT NULL") == []


async def test_outcomes_that_share_a_statement_are_judged_each_for_itself(database: Database) -> None:
    """One is held, one was taken over meanwhile, one has lost its run."""
    worker, wanted = ledger(database, "a"), [await asked(database) for _ in range(3)]
    claims = [claim for _, effect_id in wanted if (claim := await worker.claim(effect_id)) is not None]
    await database.write("UPDATE effects SET due_at = clock_timestamp() WHERE id = $1", wanted[1][1])
    await ledger(database, "b").claim(wanted[1][1])
    await commit_step(database, step(wanted[2][0], 1, [started()], close=True))
    verdicts = await asyncio.gather(
        *(worker.record(claim, *outcome(run_id, claim)) for (run_id, _), claim in zip(wanted, claims, strict=True))
    )
    assert verdicts == [Verdict.RECORDED, Verdict.STALE, Verdict.GONE]
    heads = await EventLog(database).heads([call_stream(effect_id) for _, effect_id in wanted])
    assert list(heads.values()) == [1, 0, 1]
    assert len(await database.fetch("SELECT 1 FROM outbox WHERE value IS NOT NULL")) == 1


async def test_all_facts_of_an_outcome_stand_together_or_not_at_all(database: Database) -> None:
    """A stream tells of one attempt: what another has to say, also when the run went on without both, is left out."""
    run_id, effect_id = await asked(database)
    first = await ledger(database, "a", lease=0.0).claim(effect_id)
    second = await ledger(database, "b").claim(effect_id)
    assert first is not None
    assert second is not None
    await commit_step(database, step(run_id, 1, [started()], close=True))
    short, long = outcome(run_id, second, 1), outcome(run_id, first, 3)
    verdicts = await asyncio.gather(ledger(database).record(second, *short), ledger(database).record(first, *long))
    assert verdicts == [Verdict.GONE, Verdict.GONE]
    stored = await EventLog(database).read_stream(call_stream(effect_id))
    assert [event.id for event in stored] in ([fact.id for fact in facts] for facts, _ in (short, long))
    assert verify(stored) == []


async def test_what_nobody_claimed_is_found_when_due(database: Database) -> None:
    _, effect_id = await asked(database)
    worker = ledger(database)
    assert await worker.claim_due(10, fresh=False) == []
    await database.write("UPDATE effects SET due_at = clock_timestamp() - interval '1 second'")
    [(claim, message)] = await worker.claim_due(10, fresh=False)
    assert claim.effect_id == effect_id
    assert message.envelope.id == effect_id
    assert message.data.NAME == "provider.generate"


async def test_a_free_slot_takes_the_oldest_of_what_was_turned_away(database: Database) -> None:
    wanted = [await asked(database) for _ in range(3)]
    found = await ledger(database).claim_due(2, fresh=True)
    assert {claim.effect_id for claim, _ in found} == {effect_id for _, effect_id in wanted[:2]}


async def test_many_workers_share_what_is_due_without_overlap(database: Database) -> None:
    wanted = {(await asked(database))[1] for _ in range(30)}
    batches = await asyncio.gather(*(ledger(database, str(n)).claim_due(10, fresh=True) for n in range(6)))
    found = [claim.effect_id for batch in batches for claim, _ in batch]
    assert sorted(found) == sorted(wanted)


async def test_renewal_tells_what_is_held_what_is_lost_and_what_should_stop(database: Database) -> None:
    run_id, held_id = await asked(database)
    _, lost_id = await asked(database)
    worker = ledger(database, "a")
    held, lost = await worker.claim(held_id), await worker.claim(lost_id)
    assert held is not None
    assert lost is not None
    await database.write("UPDATE effects SET due_at = clock_timestamp() WHERE id = $1", lost_id)
    await ledger(database, "b").claim(lost_id)
    await commit_step(database, step(run_id, 1, cancel_effects=True))
    assert await worker.renew([held, lost]) == {held_id: True}


async def test_what_is_given_back_is_free_at_once_and_does_not_count(database: Database) -> None:
    _, effect_id = await asked(database)
    worker = ledger(database, "a")
    claim = await worker.claim(effect_id)
    assert claim is not None
    await worker.release({claim: b"noted"})
    again = await ledger(database, "b").claim(effect_id)
    assert again is not None
    assert (again.attempt, again.memo) == (1, b"noted")


async def test_a_restarted_owner_takes_back_what_its_predecessor_held(database: Database) -> None:
    _, mine = await asked(database)
    _, other = await asked(database)
    await ledger(database, "me").claim(mine)
    await ledger(database, "other").claim(other)
    assert await ledger(database, "me").recover() == 1
    taken = await ledger(database, "me").claim(mine)
    assert taken is not None
    assert taken.attempt == 2
    assert await ledger(database, "me").claim(other) is None
