"""A run that waits for a person, in the log and in the ledgers: whoever dies, whatever is lost, whoever is first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from codeagent import clock
from codeagent.broker.topics import RUN_COMMANDS
from codeagent.errors import Unavailable
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sweep import Sweeper
from codeagent.messages import commands, events, results
from codeagent.messages.catalog import decode
from codeagent.messages.conversation import AssistantMessage, ToolCall
from codeagent.messages.envelope import Message
from codeagent.messages.ids import run_stream
from codeagent.messages.values import ApprovalDecision, ApprovalPolicy, Outcome
from codeagent.workers.step import StepLoop
from tests.integration.opened import commands_at_work
from tests.integration.workers.system import Bench

POLICY = ApprovalPolicy(tools=("shell",))
ALLOW, REJECT = ApprovalDecision.ALLOW_ONCE, ApprovalDecision.REJECT


class Asking(Bench):
    """A bench whose run asks before every command."""

    async def asks(self, agent: StepLoop, calls: int = 1) -> str:
        """Brings the run to its first question, with `calls` commands to ask about; returns the approval's id."""
        await agent.handle(self.submit(POLICY))
        await agent.handle(self.prepared())
        await agent.handle(self.model_asks(calls))
        return await self.question()

    def model_asks(self, calls: int) -> Message:
        command = self.mailbox.commands[-1].data
        assert isinstance(command, commands.GenerateReply)
        wanted = [ToolCall(id=f"c{number}", name="shell", arguments='{"command": "ls"}') for number in range(calls)]
        result = results.ProviderResult(
            effect_id=command.effect_id,
            run_id=self.run_id,
            attempt=1,
            outcome=Outcome.DONE,
            message=AssistantMessage(tool_calls=tuple(wanted)),
        )
        return self.message(result, clock.new_uuid())

    async def question(self) -> str:
        [*_, last] = await EventLog(self.database).read_stream(run_stream(self.run_id))
        required = last.decode()
        assert isinstance(required, events.InputRequired)
        return required.request.approval_id

    def answer(self, approval_id: str, decision: ApprovalDecision = ALLOW) -> Message:
        data = commands.AnswerApproval(run_id=self.run_id, approval_id=approval_id, decision=decision)
        return self.message(data, clock.new_uuid())

    async def ledger(self) -> list[str]:
        """What the run has in the effects ledger: the timer, or the command of each row."""
        at_work = [message.data for message in await commands_at_work(self.database)]
        return sorted(data.timer if isinstance(data, commands.FireTimer) else data.NAME for data in at_work)

    async def time_is_up(self) -> list[Message]:
        """The timers that a sweep finds when all of them are due."""
        await self.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'timer'")
        return list(await Sweeper(self.database).due_timers())


def later(by: timedelta) -> Callable[[], datetime]:
    """A clock that stands at `by` from now."""
    then = clock.now() + by
    return lambda: then


@pytest.fixture
def bench(database: Database) -> Asking:
    return Asking(database)


async def test_a_run_that_waits_has_nothing_under_way_but_the_end_of_its_question(bench: Asking) -> None:
    agent = bench.agent()
    approval = await bench.asks(agent)
    assert await bench.ledger() == ["approval_expiry"]
    await agent.handle(bench.answer(approval))
    assert await bench.ledger() == ["deadline", "sandbox.execute"]
    assert (await bench.names())[-3:] == ["run.input_received", "run.resumed", "tool.call.started"]


async def test_a_worker_that_dies_while_its_run_waits_is_not_missed(bench: Asking) -> None:
    approval = await bench.asks(bench.agent())
    await bench.agent().handle(bench.answer(approval))
    assert bench.mailbox.commands[-1].data.NAME == "sandbox.execute"


async def test_one_question_after_the_other_each_with_a_timer_of_its_own(bench: Asking) -> None:
    agent = bench.agent()
    first = await bench.asks(agent, calls=2)
    await agent.handle(bench.answer(first, REJECT))
    second = await bench.question()
    assert second != first
    assert await bench.ledger() == ["approval_expiry"]
    await agent.handle(bench.answer(second))
    assert await bench.ledger() == ["deadline", "sandbox.execute"]


async def test_an_answer_that_comes_many_times_counts_once(bench: Asking) -> None:
    agent = bench.agent()
    answer = bench.answer(await bench.asks(agent))
    before = len(bench.mailbox.commands)
    for loop in (agent, agent, bench.agent()):
        await loop.handle(answer)
    assert (await bench.names()).count("run.input_received") == 1
    assert len(bench.mailbox.commands) == before + 1
    assert await bench.ledger() == ["deadline", "sandbox.execute"]


async def test_of_two_people_who_answer_at_once_the_first_in_the_log_wins(bench: Asking) -> None:
    one, other = bench.agent(), bench.agent()
    approval = await bench.asks(one)
    await asyncio.gather(one.handle(bench.answer(approval)), other.handle(bench.answer(approval, REJECT)))
    names = await bench.names()
    assert names.count("run.input_received") == names.count("run.resumed") == 1
    assert names.count("tool.call.started") + names.count("tool.call.failed") == 1


async def test_an_answer_whose_message_is_lost_is_sent_again_and_handled_once(bench: Asking) -> None:
    agent = bench.agent()
    answer = bench.answer(await bench.asks(agent))
    await SubmissionLedger(bench.database).enqueue(
        OutboxRow(answer.envelope.id, RUN_COMMANDS, answer.envelope, answer.data)
    )
    await bench.database.write("UPDATE outbox SET due_at = clock_timestamp() WHERE value IS NOT NULL")
    [row] = [row for row in await Sweeper(bench.database).due_messages() if row.value is not None]
    assert (row.topic, row.key) == (RUN_COMMANDS, bench.run_id)
    for _ in range(2):
        await agent.handle(decode(row.headers, row.value))
    assert (await bench.names()).count("run.input_received") == 1
    assert await bench.database.fetch("SELECT 1 FROM outbox WHERE value IS NOT NULL") == []


async def test_an_answer_that_comes_too_late_leaves_no_row_behind(bench: Asking) -> None:
    agent = bench.agent()
    approval = await bench.asks(agent)
    await agent.handle(bench.answer(approval))
    before, late = await bench.names(), bench.answer(approval, REJECT)
    await SubmissionLedger(bench.database).enqueue(OutboxRow(late.envelope.id, RUN_COMMANDS, late.envelope, late.data))
    await agent.handle(late)
    assert await bench.names() == before
    assert await bench.database.fetch("SELECT 1 FROM outbox WHERE value IS NOT NULL") == []


async def test_a_question_that_nobody_answers_ends_by_its_timer_and_the_patch_is_collected(
    bench: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = bench.agent()
    approval = await bench.asks(agent)
    [timer] = await bench.time_is_up()
    await agent.handle(timer)
    assert await bench.question() == approval  # before its time it changes nothing
    monkeypatch.setattr(clock, "now", later(timedelta(days=1)))
    for _ in range(2):
        await agent.handle(timer)
    assert (await bench.names())[-3:] == ["run.input_expired", "run.resumed", "run.step.started"]
    await agent.handle(bench.answer(approval))
    await agent.handle(bench.prepared())
    assert (await bench.names())[-1] == "run.failed"
    assert await bench.rows("effects") == 0


async def test_a_cancel_ends_a_run_that_waits_and_leaves_nothing_in_the_ledger(bench: Asking) -> None:
    agent = bench.agent()
    approval = await bench.asks(agent)
    await agent.handle(bench.message(commands.CancelRun(run_id=bench.run_id)))
    await agent.handle(bench.answer(approval))
    assert (await bench.names())[-2:] == ["run.cancel_requested", "run.canceled"]
    assert await bench.rows("effects") == 0


async def test_a_deadline_that_was_on_its_way_when_the_run_asked_does_not_end_it(
    bench: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = bench.agent()
    await agent.handle(bench.submit(POLICY, deadline_seconds=5))
    [timer] = await bench.time_is_up()
    await agent.handle(bench.prepared())
    await agent.handle(bench.model_asks(1))
    monkeypatch.setattr(clock, "now", later(timedelta(minutes=5)))
    await agent.handle(timer)
    assert await bench.ledger() == ["approval_expiry"]
    await bench.question()


async def test_while_the_database_is_away_an_answer_is_not_acknowledged(bench: Asking) -> None:
    approval = await bench.asks(bench.agent())
    nowhere = Database("postgresql://nobody:x@127.0.0.1:1/none", timeout_seconds=1)
    with pytest.raises(Unavailable):
        await Asking(nowhere, bench.mailbox, bench.run_id).agent().handle(bench.answer(approval))
    await bench.agent().handle(bench.answer(approval))
    assert (await bench.names()).count("run.input_received") == 1
