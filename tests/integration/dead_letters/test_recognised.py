"""Why a dead letter may be sent again: whoever takes it knows what it has handled, also long after.

Orders and answers that come again in the middle of a run are in `workers/test_windows.py` and `test_any_order.py`.
"""

from __future__ import annotations

import asyncio

import pytest

from codeagent import clock
from codeagent.eventlog.effects import Claim
from codeagent.messages.commands import FireTimer
from tests.integration.dead_letters.conftest import Desk
from tests.integration.eventlog.test_sandbox_claims import BUSY, answered, asked, ledger
from tests.integration.workers.system import Bench, Calls
from tests.integration.workers.system import answered as as_message


@pytest.fixture
def bench(desk: Desk) -> Bench:
    return Bench(desk.database)


async def test_a_run_that_was_given_up_takes_the_order_that_it_failed_on_no_more(bench: Bench) -> None:
    submit = bench.submit()
    await bench.agent().give_up(submit, ValueError("a bug"))
    await bench.agent().handle(submit)
    assert await bench.names() == ["run.failed"]
    assert await bench.rows("effects") == 0


async def test_a_run_takes_no_answer_twice_and_no_timer_before_its_time(bench: Bench) -> None:
    agent = bench.agent()
    await agent.handle(bench.submit())
    prepared = bench.prepared()
    await agent.handle(prepared)
    before, effects = await bench.names(), await bench.rows("effects")
    timer = FireTimer(run_id=bench.run_id, timer_id=clock.new_uuid(), timer="deadline")
    for message in (prepared, bench.message(timer)):
        await bench.agent().handle(message)
    assert (await bench.names(), await bench.rows("effects")) == (before, effects)


async def test_a_model_call_that_was_made_is_not_made_again_whether_its_run_knows_or_not(bench: Bench) -> None:
    agent, calls = bench.agent(), Calls()
    command = await bench.thinking(agent)
    worker = bench.provider(calls)
    await worker.start()
    await worker.handle(command)
    async with asyncio.timeout(10):
        while not bench.mailbox.answers:
            await asyncio.sleep(0.01)
    await worker.handle(command)
    await agent.handle(as_message(bench.mailbox.answers[0]))
    await worker.handle(command)
    await worker.drain(5)
    assert (calls.performed, len(bench.mailbox.answers)) == ([1], 1)


async def test_an_operation_in_a_sandbox_is_not_claimed_again_once_its_outcome_is_there(desk: Desk) -> None:
    [effect] = await asked(desk.database, BUSY)
    claims = ledger(desk.database)
    assert isinstance(await claims.claim(effect), Claim)
    assert await claims.claim(effect) is None, "somebody works on it"
    await answered(desk.database, [effect])
    assert await claims.claim(effect) is None
    await desk.database.write("DELETE FROM effects")
    assert await claims.claim(effect) is None
