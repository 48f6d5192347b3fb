"""A tenant's day of commands: never passed by more than one of them, however many begin at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, date
from decimal import Decimal
from uuid import UUID

import pytest

from codeagent import clock
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages import events
from codeagent.messages.values import Outcome
from codeagent.projections.usage import UsageProjector
from codeagent.quotas.quota import SandboxQuota
from codeagent.quotas.reservations import Reservations, Worst, forget_reservations
from codeagent.sandboxes.protocol import SandboxFailure
from tests.integration.eventlog.test_sandbox_claims import opened
from tests.integration.projections.logs import TENANT, Happened, new_run_id, write

MINUTE = Worst(wall_seconds=60, cpu_cores=1.0, memory_bytes=1 << 30)


def of_today(run_id: str, effect_id: UUID, seconds: float) -> Happened:
    """A command that ran so long, on one core and with a GiB of memory."""
    fact = events.ExecEnded(
        effect_id=effect_id,
        run_id=run_id,
        attempt=1,
        outcome=Outcome.DONE,
        operation="tool",
        reason="ok",
        driver="scripted",
        level=1,
        wall_seconds=seconds,
        cpu_seconds=seconds,
        memory_limit_bytes=1 << 30,
        duration_seconds=seconds,
    )
    return Happened(run_id, fact, today())


def today() -> date:
    return clock.now().astimezone(UTC).date()


async def counted(database: Database, happened: Happened) -> None:
    """In the log, and by the projection."""
    await write(database, [happened])
    projector = UsageProjector(database, EventLog(database))
    async with asyncio.timeout(20):
        while not await projector.catch_up():
            await asyncio.sleep(0.005)


async def attempt(reservations: Reservations, effect_id: UUID) -> bool:
    try:
        await reservations.reserve(TENANT, effect_id, MINUTE)
    except SandboxFailure as refused:
        assert (refused.reason, refused.retryable) == ("quota_exceeded", False)
        assert "begin anew at" in refused.detail
        return False
    return True


async def test_of_many_that_race_as_many_begin_as_the_day_has_room_for_at_their_worst(database: Database) -> None:
    workers = [Reservations(database, SandboxQuota(cpu_seconds_per_day=150)) for _ in range(4)]
    await opened(database)
    tries = [attempt(workers[number % 4], clock.new_uuid()) for number in range(24)]
    assert sum(await asyncio.gather(*tries)) == 3, "150 seconds are passed by less than the minute of one command"


@pytest.mark.parametrize(
    "quota",
    [SandboxQuota(cpu_seconds_per_day=61), SandboxQuota(gib_hours_per_day=Decimal(61) / 3_600)],
    ids=["cpu", "memory"],
)
async def test_what_was_used_counts_in_the_place_of_what_was_reserved(
    newest_database_url: str, quota: SandboxQuota
) -> None:
    database = Database(newest_database_url, connections=4)
    reservations, first, second = Reservations(database, quota), clock.new_uuid(), clock.new_uuid()
    assert await attempt(reservations, first)
    assert await attempt(reservations, second), "one second is left"
    assert not await attempt(reservations, clock.new_uuid())
    await counted(database, of_today(new_run_id(), first, 1.0))
    await counted(database, of_today(new_run_id(), second, 2.0))
    assert await database.fetch("SELECT FROM sandbox_reservations") == []
    third = clock.new_uuid()
    assert await attempt(reservations, third), "58 seconds are left"
    await counted(database, of_today(new_run_id(), third, 58.5))
    assert not await attempt(reservations, clock.new_uuid()), "and now none"
    await database.close()


async def test_an_effect_that_is_performed_again_reserves_once(newest_database_url: str) -> None:
    database = Database(newest_database_url, connections=2)
    reservations, effect_id = Reservations(database, SandboxQuota(cpu_seconds_per_day=60)), clock.new_uuid()
    assert [await attempt(reservations, effect_id) for _ in range(3)] == [True, True, True]
    assert not await attempt(reservations, clock.new_uuid())
    await database.write("UPDATE sandbox_reservations SET expires_at = now()")
    assert await attempt(reservations, clock.new_uuid()), "of a command that nobody ever told the end of"
    assert await forget_reservations(database, 10) == 1
    await database.close()


async def test_without_a_daily_quota_commands_cost_no_query(newest_database_url: str) -> None:
    database = Database(newest_database_url, connections=2)
    reservations = Reservations(database, SandboxQuota(concurrent_sandboxes=1), remembered_seconds=60)
    assert await attempt(reservations, clock.new_uuid())
    await database.close()
    database.url = "postgresql://nobody@127.0.0.1:1/none"
    assert await attempt(reservations, clock.new_uuid())
