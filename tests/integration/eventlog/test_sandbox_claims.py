"""Tenants' sandboxes at once: never more than their quota however claims race, and nobody waits for a tenant's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.sandbox_claims import SandboxLedger, waiting_for_room
from codeagent.eventlog.step import EffectRow
from codeagent.messages.commands import ExecuteOperation
from codeagent.messages.values import CollectPatch
from tests.integration.eventlog.steps import commit_step, new_run, started, step

BUSY, CALM = "ten_busy", "ten_calm"


def ledger(database: Database, most: int | None = None, *, owner: str = "a", lease: float = 30.0) -> SandboxLedger:
    return SandboxLedger(
        database, owner=owner, lease=timedelta(seconds=lease), new_token=clock.new_uuid, most_of_tenant=most
    )


async def asked(database: Database, tenant: str, count: int = 1) -> list[UUID]:
    """Runs of a tenant that each wait for one operation."""
    effects: list[UUID] = []
    for _ in range(count):
        run_id, effect_id = new_run(), clock.new_uuid()
        command = ExecuteOperation(
            effect_id=effect_id, run_id=run_id, base=None, checkpoint="", operation=CollectPatch()
        )
        wanted = step(run_id, 0, [started()], effects=[EffectRow(effect_id, "sandbox", command)], tenant=tenant)
        await commit_step(database, wanted)
        effects.append(effect_id)
    return effects


async def claimed(claims: SandboxLedger, most: int = 50) -> list[UUID]:
    return [claim.effect_id for claim, _ in await claims.claim_due(most, fresh=True)]


async def opened(database: Database) -> None:
    """All its connections, so that those who race do not queue for one."""
    await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.05)") for _ in range(20)))


async def answered(database: Database, effects: Sequence[UUID]) -> None:
    """Their outcomes are recorded, which frees their room."""
    await database.write("UPDATE effects SET recorded = true WHERE id = ANY ($1)", list(effects))


async def test_of_many_workers_that_race_as_many_claims_are_made_as_there_is_room(database: Database) -> None:
    effects = await asked(database, BUSY, 12)
    await opened(database)
    workers = [ledger(database, 3, owner=str(number)) for number in range(6)]
    by_message = [worker.claim(effect) for worker in workers for effect in effects]
    by_sweep = [worker.claim_due(5, fresh=True) for worker in workers]
    messages, sweeps = await asyncio.gather(asyncio.gather(*by_message), asyncio.gather(*by_sweep))
    won = [claim for claim in messages if isinstance(claim, Claim)] + [claim for found in sweeps for claim, _ in found]
    assert len(won) == len({claim.effect_id for claim in won}) == 3
    assert await claimed(workers[0]) == []


async def test_what_waits_is_claimed_once_there_is_room_the_oldest_first(database: Database) -> None:
    first, second, third = await asked(database, BUSY, 3)
    worker = ledger(database, 1)
    assert await worker.claim(first) is not None
    assert await worker.claim(second) is None
    assert await worker.claim(third) is None
    await answered(database, [first])
    [newcomer] = await asked(database, BUSY)
    assert await worker.claim(newcomer) is None, "those that have waited come before it"
    found = await worker.claim_due(10, fresh=False)
    assert [claim.effect_id for claim, _ in found] == [second]
    assert found[0][0].attempt == 1, "waiting is no attempt"


async def test_another_tenants_operations_pass_those_that_wait(database: Database) -> None:
    waiting = await asked(database, BUSY, 30)
    worker = ledger(database, 1)
    assert await claimed(worker, 2) == waiting[:1]
    calm = await asked(database, CALM)
    assert await claimed(worker, 1) == calm, "although thirty of another are older"


async def test_a_tenants_own_quota_counts_in_the_place_of_the_default(database: Database) -> None:
    await asked(database, BUSY, 5)
    await asked(database, CALM, 5)
    row = "INSERT INTO sandbox_quotas (tenant_id, version, concurrent_sandboxes) VALUES ($1, 1, 4)"
    await database.write(row, BUSY)
    assert len(await claimed(ledger(database, 2))) == 4 + 2
    await database.write("UPDATE sandbox_quotas SET concurrent_sandboxes = NULL")
    await asked(database, BUSY)
    assert len(await claimed(ledger(database))) == 5, "no quota and no default: all of them"


async def test_a_message_that_comes_again_for_what_is_at_work_frees_no_room(database: Database) -> None:
    first, second = await asked(database, BUSY, 2)
    assert await ledger(database, 1).claim(first) is not None
    tokens = [clock.new_uuid(), clock.new_uuid()]
    together = "SELECT id FROM claim_sandboxes_v1($1, $2, 'a', interval '30 seconds', 1)"
    assert await database.write(together, [first, second], tokens) == []


async def test_what_a_dead_worker_held_is_taken_over_in_its_own_place(database: Database) -> None:
    first, _ = await asked(database, BUSY, 2)
    assert await ledger(database, 1, owner="dead", lease=0.0).claim(first) is not None
    found = await ledger(database, 1, owner="b").claim_due(10, fresh=True)
    assert [(claim.effect_id, claim.attempt) for claim, _ in found] == [(first, 2)]


async def test_those_that_wait_for_a_tenants_own_are_counted_and_those_for_a_worker_are_not(database: Database) -> None:
    effects = await asked(database, BUSY, 5)
    await asked(database, CALM, 5)
    worker = ledger(database, 2)
    assert len(await claimed(worker)) == 2 + 2
    assert await waiting_for_room(database, 2) == 0, "their workers have just been told"
    await database.write("UPDATE effects SET due_at = clock_timestamp() WHERE token IS NULL")
    assert await waiting_for_room(database, 2) == 3 + 3
    assert await waiting_for_room(database, 4) == 1 + 1, "the others have room, and no worker yet"
    assert await waiting_for_room(database) == 0
    row = "INSERT INTO sandbox_quotas (tenant_id, version, concurrent_sandboxes) VALUES ($1, 1, 2)"
    await database.write(row, BUSY)
    assert await waiting_for_room(database) == 3
    await answered(database, effects)
    assert await waiting_for_room(database) == 0
