"""What model calls may spend: many at once, in whatever order they meet, never pass a limit by a cent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

import pytest

from codeagent import clock
from codeagent.budgets.budget import Unit
from codeagent.budgets.reservations import CallReservations, NoRoom, Spender, WorstCase, forget_call_reservations
from codeagent.budgets.standings import standings
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.log import EventLog
from codeagent.messages.conversation import Usage
from codeagent.messages.ids import typed_id
from codeagent.projections.usage import UsageProjector
from tests.integration.projections.logs import TENANT, Happened, call, new_run_id, submitted, write
from tests.integration.quotas.test_reservations import today

WORST = WorstCase(1_000, 1_000, 100, Decimal("0.10"), Decimal("0.0001"))
"""Twenty cents, of which a hundred tokens of reply, with what is told, are eleven."""
FREE = replace(WORST, input_usd=Decimal(0), output_usd=Decimal(0))
UNPRICED = replace(WORST, input_usd=None, output_usd=None)


@pytest.fixture
async def owner(newest_database_url: str) -> AsyncIterator[Database]:
    database = Database(newest_database_url, connections=12)
    yield database
    await database.close()


async def budget(database: Database, amount: str, unit: str = "usd", **columns: str) -> str:
    values = {"scope": "tenant", "scope_id": None, "period": "month", "action": "refuse", **columns}
    budget_id = typed_id("bud", clock.new_uuid())
    await database.write(
        """INSERT INTO budgets (id, tenant_id, version, name, scope, scope_id, period, unit, amount, action, fingerprint)
           VALUES ($1, $2, 1, 'b', $3, $4, $5, $6, $7, $8, 'f')""",
        budget_id,
        TENANT,
        values["scope"],
        values["scope_id"],
        values["period"],
        unit,
        Decimal(amount),
        values["action"],
    )
    return budget_id


def claim(effect_id: UUID | None = None) -> Claim:
    return Claim(effect_id or clock.new_uuid(), clock.new_uuid(), 1, False)


def spender(limit: str | None = None, principal: str = "usr_1", project: str | None = None) -> Spender:
    return Spender(TENANT, new_run_id(), principal, project, None if limit is None else Decimal(limit))


@dataclass
class Caller:
    """One worker, by the rules: reserve, call, settle, record."""

    database: Database
    spender: Spender = field(default_factory=spender)
    worst: WorstCase = WORST

    def __post_init__(self) -> None:
        self.reservations = CallReservations(self.database)

    async def reserve(self, claim: Claim) -> int:
        """The tokens that are granted; none where there is no room."""
        granted = await self.reservations.reserve(claim, self.spender, self.worst)
        return 0 if isinstance(granted, NoRoom) else granted

    async def settle(self, claim: Claim, usd: str, tokens: int = 2_000) -> None:
        await self.reservations.settle(claim, tokens, Decimal(usd))

    async def record(self, claim: Claim, usd: str, tokens: int = 2_000) -> None:
        """The call's fact, which no projection has counted yet."""
        run_id = self.spender.run_id
        usage = Usage(input_tokens=tokens // 2, output_tokens=tokens - tokens // 2)
        fact = call(run_id, cost=usd, usage=usage).model_copy(update={"effect_id": claim.effect_id})
        first = submitted(run_id, self.spender.principal_id, "m", self.spender.max_cost_usd)
        known = await self.database.fetch("SELECT FROM events WHERE stream_id = $1", f"run-{run_id}")
        log = [Happened(run_id, fact, today())]
        await write(self.database, log if known else [Happened(run_id, first, today()), *log])


async def counted(database: Database) -> None:
    """Returns once the projection has what is in the log."""
    projector = UsageProjector(database, EventLog(database))
    behind = """SELECT FROM events e LEFT JOIN projections p ON p.name = 'usage'
                WHERE (e.transaction_id, e.global_position)
                      > (coalesce(p.transaction_id, '0'::xid8), coalesce(p.global_position, 0)) LIMIT 1"""
    async with asyncio.timeout(20):
        while await database.fetch(behind):
            if not await projector.catch_up():
                await asyncio.sleep(0.005)


async def spent(database: Database) -> Decimal:
    [[usd]] = await database.fetch("SELECT coalesce(sum(cost_usd), 0) FROM usage_by_day")
    return Decimal(usd)


async def reserved(database: Database) -> int:
    [[rows]] = await database.fetch("SELECT count(*) FROM call_reservations")
    return int(rows)


async def blocked(database: Database, count: int) -> None:
    """Returns once so many transactions wait for a lock."""
    async with asyncio.timeout(20):
        while True:
            [[waiting]] = await database.fetch("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
            if waiting >= count:
                return
            await asyncio.sleep(0.005)


async def test_of_many_that_race_as_many_begin_as_there_is_money_for_at_their_worst(database: Database) -> None:
    await budget(database, "1.00")
    callers = [Caller(database, worst=replace(WORST, least_output_tokens=1_000)) for _ in range(24)]
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM budgets FOR UPDATE")
        tries = [asyncio.create_task(caller.reserve(claim())) for caller in callers[:8]]
        await blocked(database, 8)  # all of them are there before the first is let through
    tries += [asyncio.create_task(caller.reserve(claim())) for caller in callers[8:]]
    assert sorted(await asyncio.gather(*tries)) == [0] * 19 + [1_000] * 5, "five times twenty cents are the dollar"


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_order_the_budget_is_not_passed_by_a_cent(owner: Database, seed: int) -> None:
    """Callers that reserve, call, settle and record as they come, while the projection counts beside them."""
    chance = random.Random(seed)
    await budget(owner, "1.00")
    await budget(owner, "0.55", scope="principal", scope_id="usr_1")
    refused = 0

    async def work(number: int) -> None:
        nonlocal refused
        caller = Caller(owner, spender("0.30", principal=f"usr_{number % 2}"))
        for _ in range(3):
            mine = claim()
            granted = await caller.reserve(mine)
            if not granted:
                refused += 1
                return
            usd = str(Decimal("0.10") + granted * Decimal("0.0001") * chance.randint(5, 10) / 10)
            await asyncio.sleep(chance.random() / 50)
            if chance.random() < 0.8:
                await caller.settle(mine, usd)
            await caller.record(mine, usd)

    async def count(done: asyncio.Event) -> None:
        while not done.is_set():
            await counted(owner)
            assert await spent(owner) <= 1
            await asyncio.sleep(0.005)

    done = asyncio.Event()
    counting = asyncio.create_task(count(done))
    await asyncio.gather(*(work(number) for number in range(12)))
    done.set()
    await counting
    await counted(owner)
    total = await spent(owner)
    mine = await owner.fetch("SELECT coalesce(sum(cost_usd), 0) FROM usage_by_day WHERE principal_id = 'usr_1'")
    runs = await owner.fetch("SELECT max(cost_usd) FROM usage_runs")
    assert total <= 1
    assert mine[0][0] <= Decimal("0.55")
    assert runs[0][0] <= Decimal("0.30")
    assert refused > 0
    assert total > Decimal("0.70"), "and what there is can be spent"
    assert await reserved(owner) == 0


async def test_a_call_is_in_one_of_the_two_sums_while_it_is_being_counted(owner: Database) -> None:
    await budget(owner, "0.40")
    first, second = Caller(owner), Caller(owner, worst=replace(WORST, least_output_tokens=1_000))
    mine = claim()
    assert await first.reserve(mine) == 1_000
    await first.settle(mine, "0.20")
    await first.record(mine, "0.20")
    async with owner.transaction() as counting:
        await counting.execute("DELETE FROM call_reservations WHERE effect_id = $1", mine.effect_id)
        await counting.execute(
            "INSERT INTO usage_by_day (tenant_id, day, model, principal_id, cost_usd) VALUES ($1, $2, 'm', 'usr_1', 0.2)",
            TENANT,
            today(),
        )
        assert await second.reserve(claim()) == 1_000, "not counted yet: it is reserved"
        assert await second.reserve(claim()) == 0
    assert await second.reserve(claim()) == 0, "counted, and not reserved any more"


async def test_a_reply_is_cut_down_to_what_is_left_and_no_further_than_is_of_use(owner: Database) -> None:
    tight = await budget(owner, "0.35")
    await budget(owner, "1000000", unit="tokens")
    caller = Caller(owner)
    assert [await caller.reserve(claim()) for _ in range(2)] == [1_000, 500]
    refused = await caller.reservations.reserve(claim(), caller.spender, WORST)
    assert refused == NoRoom(tight, Unit.USD, Decimal("0.35"), Decimal(0))
    assert await reserved(owner) == 2, "what is refused reserves nothing"


async def test_a_run_is_held_to_its_own_limit_before_and_after_its_calls_are_counted(owner: Database) -> None:
    caller = Caller(owner, spender("0.50"))
    first, second = claim(), claim()
    assert await caller.reserve(first) == 1_000
    await caller.settle(first, "0.15")
    await caller.record(first, "0.15")
    assert await caller.reserve(second) == 1_000, "thirty-five cents are left"
    await caller.settle(second, "0.20")
    await caller.record(second, "0.20")
    await counted(owner)
    assert await caller.reserve(claim()) == 500, "fifteen are"
    refused = await caller.reservations.reserve(claim(), caller.spender, WORST)
    assert refused == NoRoom(None, Unit.USD, Decimal("0.50"), Decimal(0))
    assert await Caller(owner, spender("0.50")).reserve(claim()) == 1_000, "another run has money of its own"


async def test_tokens_are_reserved_as_money_is(owner: Database) -> None:
    budget_id = await budget(owner, "3500", unit="tokens")
    caller = Caller(owner, worst=FREE)
    assert [await caller.reserve(claim()) for _ in range(2)] == [1_000, 500]
    refused = await caller.reservations.reserve(claim(), caller.spender, UNPRICED)
    assert refused == NoRoom(budget_id, Unit.TOKENS, Decimal(3500), Decimal(0))


@pytest.mark.parametrize("worst", [FREE, UNPRICED], ids=["free", "unpriced"])
async def test_what_costs_nothing_that_is_known_passes_a_budget_that_is_spent(
    owner: Database, worst: WorstCase
) -> None:
    await budget(owner, "0.20")
    assert await Caller(owner).reserve(claim()) == 1_000
    assert await Caller(owner).reserve(claim()) == 0
    assert await Caller(owner, worst=worst).reserve(claim()) == 1_000


async def test_budgets_concern_their_principal_their_project_and_their_period(owner: Database) -> None:
    await budget(owner, "0.20", scope="principal", scope_id="usr_1")
    await budget(owner, "0.20", scope="project", scope_id="prj_1")
    await budget(owner, "0.01", action="warn")
    await Caller(owner, spender(principal="usr_1")).reserve(claim())
    await Caller(owner, spender(principal="usr_2", project="prj_1")).reserve(claim())
    assert await Caller(owner, spender(principal="usr_1", project="prj_2")).reserve(claim()) == 0
    assert await Caller(owner, spender(principal="usr_3", project="prj_1")).reserve(claim()) == 0
    assert await Caller(owner, spender(principal="usr_3", project="prj_2")).reserve(claim()) == 1_000
    await budget(owner, "0.50", period="day")
    caller, mine = Caller(owner, spender(principal="usr_4")), claim()
    await owner.write("DELETE FROM call_reservations")
    run_id = caller.spender.run_id
    yesterday = today().replace(year=today().year - 1)
    await write(owner, [Happened(run_id, submitted(run_id, "usr_4", "m"), yesterday)])
    await write(owner, [Happened(run_id, call(run_id, cost="0.50"), yesterday)])
    await counted(owner)
    assert await caller.reserve(mine) == 1_000, "another day's spending is another day's"


async def test_a_call_that_comes_again_or_is_taken_over_reserves_once(owner: Database) -> None:
    await budget(owner, "0.30")
    worker, other = Caller(owner), Caller(owner)
    first = claim()
    assert [await worker.reserve(first) for _ in range(3)] == [1_000] * 3
    taken_over = claim(first.effect_id)
    assert await other.reserve(taken_over) == 1_000
    await worker.settle(first, "0.00", 0)
    assert await Caller(owner).reserve(claim()) == 0, "who has lost the call settles nothing of it"
    await other.settle(taken_over, "0.10", 500)
    assert await Caller(owner).reserve(claim()) == 1_000


async def test_what_earlier_attempts_have_come_to_stays_reserved_with_the_next(owner: Database) -> None:
    await budget(owner, "0.45")
    caller, mine = Caller(owner), claim()
    assert await caller.reserve(mine) == 1_000
    caller.worst = WORST.after(2_000, Decimal("0.20"))
    assert await caller.reserve(mine) == 1_000
    assert await Caller(owner).reserve(claim()) == 0, "five cents are left"
    caller.worst = WORST.after(4_000, Decimal("0.40"))
    assert await caller.reserve(mine) == 0
    await caller.settle(mine, "0.40", 4_000)
    assert await Caller(owner).reserve(claim()) == 0, "what was refused a third attempt has still made two"


async def test_what_nobody_tells_the_end_of_is_free_after_a_time(owner: Database) -> None:
    await budget(owner, "0.20")
    assert await Caller(owner).reserve(claim()) == 1_000
    assert await Caller(owner).reserve(claim()) == 0
    await owner.write("UPDATE call_reservations SET expires_at = now()")
    assert await Caller(owner).reserve(claim()) == 1_000
    assert await forget_call_reservations(owner, 10) == 1


async def test_what_calls_have_reserved_is_shown_with_the_budget(owner: Database) -> None:
    money, tokens = await budget(owner, "10"), await budget(owner, "9999", unit="tokens")
    await Caller(owner, spender()).reserve(claim())
    limited, mine = Caller(owner, spender("4.00")), claim()
    await limited.reserve(mine)
    await limited.settle(mine, "0.20")
    await limited.record(mine, "0.20")
    await counted(owner)
    await limited.reserve(claim())
    found = {each.budget.id: each for each in await standings(owner, TENANT, "ORDER BY b.id")}
    assert (found[money].spent, found[money].reserved) == (Decimal("0.2"), Decimal("4.0")), "twenty cents, and 3.80"
    assert (found[tokens].spent, found[tokens].reserved) == (2_000, 4_000)


async def test_without_limits_a_call_costs_no_query(newest_database_url: str) -> None:
    database = Database(newest_database_url, connections=2)
    reservations = CallReservations(database, remembered_seconds=60)
    assert await reservations.reserve(claim(), spender(), WORST) == 1_000
    await database.close()
    database.url = "postgresql://nobody@127.0.0.1:1/none"
    assert await reservations.reserve(claim(), spender(), WORST) == 1_000
