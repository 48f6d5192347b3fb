"""A run and its child in the log and in the ledgers: what each commit has in it, whatever is lost, comes twice or late."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

import pytest

from codeagent import clock
from codeagent.agent.delegation import child_of
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sweep import Sweeper
from codeagent.messages import commands, results
from codeagent.messages.catalog import decode
from codeagent.messages.conversation import AssistantMessage, ToolCall, Usage
from codeagent.messages.envelope import Message, Payload
from codeagent.messages.ids import derived_uuid, run_stream
from codeagent.messages.subagents import SubagentResult
from codeagent.messages.values import AgentDefinition, Delegate, Outcome, RunLimits
from codeagent.projections.runs import RunFilter, RunsProjector, list_runs
from codeagent.projections.usage import UsageProjector
from codeagent.projections.view import RunView
from codeagent.workers.step import StepLoop
from tests.integration.workers.system import DIGEST, TENANT, Bench

HELPER = Delegate(name="helper", version=2, model="test/m", limits=RunLimits())
LEAD = AgentDefinition(id="agt_lead", digest=DIGEST, instructions="", tools=("shell", "submit"), delegates=(HELPER,))
HAND_ON = ToolCall(id="c1", name="delegate", arguments='{"task": "Write tests."}')
SUBMIT = ToolCall(id="c2", name="submit", arguments='{"summary": "done"}')
CHANGED = "sha256:" + "b" * 64


@dataclass
class Member(Bench):
    """A run whose models and sandboxes the test answers for, in the flow of the run `first`."""

    first: str = ""

    def message(self, data: Payload, message_id: UUID | None = None) -> Message:
        said = super().message(data, message_id)
        flow = derived_uuid(self.first or self.run_id, "submit")
        return Message(replace(said.envelope, correlation_id=flow), said.data)

    def says(self, *calls: ToolCall, cost_usd: Decimal | None = None) -> Message:
        command = self.mailbox.commands[-1].data
        assert isinstance(command, commands.GenerateReply)
        result = results.ProviderResult(
            effect_id=command.effect_id,
            run_id=self.run_id,
            attempt=1,
            outcome=Outcome.DONE,
            message=AssistantMessage(tool_calls=calls),
            usage=Usage(input_tokens=7),
            cost_usd=cost_usd,
        )
        return self.message(result, clock.new_uuid())

    def did(self, **fields: object) -> Message:
        command = self.mailbox.commands[-1].data
        assert isinstance(command, commands.ExecuteOperation)
        values = {"checkpoint": command.checkpoint, "reason": "ok", **fields}
        result = results.SandboxResult(
            effect_id=command.effect_id, run_id=self.run_id, attempt=1, outcome=Outcome.DONE, **values
        )
        return self.message(result, clock.new_uuid())


@dataclass
class Family:
    """A run that has handed a task on, and the run that has it."""

    database: Database
    parent: Member = field(init=False)
    child: Member = field(init=False)
    order: Message = field(init=False)
    """What starts the child."""
    handed_on: Message = field(init=False)
    """What has led to that."""

    async def begin(self, agent: StepLoop | None = None, **limits: object) -> StepLoop:
        self.parent = Member(self.database)
        agent = agent or self.parent.agent()
        await agent.handle(self.parent.submit(definition=LEAD, **limits))
        await agent.handle(self.parent.prepared())
        self.handed_on = self.parent.says(HAND_ON)
        await agent.handle(self.handed_on)
        [row] = self.parent.mailbox.answers
        self.order = Message(row.envelope, row.data)
        self.child = Member(self.database, self.parent.mailbox, row.envelope.key, first=self.parent.run_id)
        return agent

    async def child_completes(self, agent: StepLoop) -> Message:
        """Returns what the parent is told."""
        await agent.handle(self.order)
        await agent.handle(self.child.did(base=DIGEST))
        shell = ToolCall(id="c1", name="shell", arguments='{"command": "touch x"}')
        await agent.handle(self.child.says(shell, cost_usd=Decimal("0.25")))
        await agent.handle(self.child.did(checkpoint=CHANGED))
        await agent.handle(self.child.says(SUBMIT))
        await agent.handle(self.child.did())
        return self.newest_order()

    def newest_order(self) -> Message:
        row = self.parent.mailbox.answers[-1]
        return Message(row.envelope, row.data)

    async def waiting(self) -> list[tuple[str, str]]:
        """Messages to our own that nobody has handled: whose, and which."""
        rows = await self.database.fetch(
            "SELECT key, headers ->> 'ce_type' AS type FROM outbox WHERE value IS NOT NULL"
        )
        return [(row["key"], row["type"].removeprefix("io.codeagent.")) for row in rows]

    async def effects(self, run: Bench) -> list[str]:
        rows = await self.database.fetch("SELECT kind FROM effects WHERE run_id = $1 ORDER BY kind", run.run_id)
        return [row["kind"] for row in rows]


@pytest.fixture
def family(database: Database) -> Family:
    return Family(database)


async def test_a_child_is_ordered_in_the_commit_of_its_call_and_known_from_then_on(family: Family) -> None:
    agent = await family.begin()
    assert await family.waiting() == [(family.child.run_id, "run.submit.v1")]
    assert await family.effects(family.parent) == ["child", "timer"]
    [noted] = await family.database.fetch("SELECT * FROM submissions")
    assert (noted["run_id"], noted["tenant_id"], noted["accepted"]) == (family.child.run_id, TENANT, True)
    for loop in (agent, family.parent.agent()):
        await loop.handle(family.handed_on)
    assert (await family.parent.names()).count("subagent.started") == 1
    assert len(family.parent.mailbox.answers) == 1


async def test_an_order_that_was_lost_is_found_by_a_sweep_until_the_child_has_it(family: Family) -> None:
    agent = await family.begin()
    await family.database.write("UPDATE outbox SET due_at = clock_timestamp() WHERE value IS NOT NULL")
    [row] = [row for row in await Sweeper(family.database).due_messages() if row.value is not None]
    found = decode(row.headers, row.value)
    assert (found.data, found.envelope.expires_at) == (family.order.data, family.order.envelope.expires_at)
    for message in (found, family.order, found):
        await agent.handle(message)
    assert await family.child.names() == ["run.submitted", "run.started", "run.step.started"]
    assert await family.waiting() == []


async def test_the_end_of_a_child_and_what_its_parent_is_told_are_one_commit_and_count_once(family: Family) -> None:
    agent = await family.begin()
    result = await family.child_completes(agent)
    assert (await family.child.names())[-1] == "run.completed"
    assert await family.waiting() == [(family.parent.run_id, "subagent.result.v1")]
    assert isinstance(result.data, SubagentResult)
    assert (result.data.text, result.data.checkpoint, result.data.steps) == ("done", CHANGED, 2)
    for loop in (agent, family.parent.agent(), agent):
        await loop.handle(result)
    names = await family.parent.names()
    assert names[-3:] == ["subagent.completed", "tool.call.completed", "run.step.started"]
    assert await family.waiting() == []
    assert await family.effects(family.parent) == ["provider", "timer"]
    await agent.handle(family.parent.says(SUBMIT))
    command = family.parent.mailbox.commands[-1].data
    assert isinstance(command, commands.ExecuteOperation)
    assert command.checkpoint == CHANGED


async def test_a_canceled_parent_stops_its_child_which_nobody_has_heard_of_yet(family: Family) -> None:
    agent = await family.begin()
    await agent.handle(family.parent.message(commands.CancelRun(run_id=family.parent.run_id)))
    stop = family.newest_order()
    assert isinstance(stop.data, commands.CancelRun)
    for message in (stop, family.order, stop):
        await agent.handle(message)
    assert await family.child.names() == ["run.cancel_requested", "run.submitted", "run.canceled"]
    await agent.handle(family.newest_order())
    assert (await family.parent.names())[-2:] == ["subagent.failed", "run.canceled"]
    assert (await family.waiting(), await family.effects(family.parent)) == ([], [])


async def test_a_stop_that_is_ordered_again_is_one_order(family: Family) -> None:
    agent = await family.begin()
    cancel = commands.CancelRun(run_id=family.parent.run_id)
    await agent.handle(family.parent.message(cancel))
    grace = commands.FireTimer(
        run_id=family.parent.run_id, timer_id=derived_uuid(family.parent.run_id, "cancel_grace"), timer="cancel_grace"
    )
    await agent.handle(family.parent.message(grace))
    assert (await family.parent.names())[-1] == "run.canceled"
    assert sorted(await family.waiting()) == sorted(
        [(family.child.run_id, "run.submit.v1"), (family.child.run_id, "run.cancel.v1")]
    )


async def test_a_child_that_cannot_go_on_tells_its_parent_all_the_same(family: Family) -> None:
    agent = await family.begin(max_cost_usd=Decimal(2))
    await agent.give_up(family.order, ValueError("a bug"))
    result = family.newest_order()
    assert isinstance(result.data, SubagentResult)
    assert (result.data.status_reason, result.data.cost_usd) == ("internal_error", Decimal(1))
    await agent.handle(result)
    assert (await family.parent.names())[-1] == "run.step.started"
    assert await family.waiting() == []


async def test_a_parent_that_cannot_go_on_stops_its_child(family: Family) -> None:
    agent = await family.begin()
    await agent.handle(family.order)
    await agent.give_up(family.handed_on, ValueError("a bug"))
    stop = family.newest_order()
    assert (stop.envelope.key, type(stop.data)) == (family.child.run_id, commands.CancelRun)
    await agent.handle(stop)
    assert (await family.child.names())[-1] == "run.cancel_requested"


async def test_a_child_of_which_nothing_is_heard_is_missed_by_the_ledger(family: Family) -> None:
    agent = await family.begin(deadline_seconds=60)
    await family.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'child'")
    [missed] = await Sweeper(family.database).due_timers()
    assert isinstance(missed.data, commands.FireTimer)
    assert (missed.data.timer, missed.envelope.key) == ("child", family.parent.run_id)
    assert family.child.run_id == child_of(missed.data.timer_id)
    await agent.handle(missed)
    assert (await family.parent.names())[-1] == "subagent.started", "it has its time still"


async def test_one_correlation_tells_the_story_of_both_and_one_person_has_submitted_them(family: Family) -> None:
    agent = await family.begin()
    await agent.handle(await family.child_completes(agent))
    log = EventLog(family.database)
    stories = [await log.read_stream(run_stream(run.run_id)) for run in (family.parent, family.child)]
    flows = {stored.metadata["correlationid"] for story in stories for stored in story}
    assert flows == {str(derived_uuid(family.parent.run_id, "submit"))}
    first = stories[1][0]
    assert (first.metadata["authtype"], first.metadata["authid"]) == ("run", family.parent.run_id)
    assert first.metadata["causationid"] == str(family.order.envelope.id)
    assert family.order.envelope.causation_id == family.handed_on.envelope.id
    view = RunView(family.child.run_id, TENANT)
    for stored in stories[1]:
        view.apply(stored)
    assert (view.parent_run_id, view.correlation_id) == (family.parent.run_id, family.order.envelope.correlation_id)


async def test_a_child_is_listed_as_such_and_what_it_may_spend_is_not_reserved_twice(family: Family) -> None:
    await family.child_completes(await family.begin(max_cost_usd=Decimal(2)))
    database, log = family.database, EventLog(family.database)
    for projector in (RunsProjector(database, log), UsageProjector(database, log)):
        while await projector.catch_up():
            pass
    wanted = RunFilter(parent=family.parent.run_id)
    [row], following = await list_runs(database, TENANT, wanted, after=None, limit=10)
    assert (row.run_id, row.parent_run_id, following) == (family.child.run_id, family.parent.run_id, None)
    everyone, _ = await list_runs(database, TENANT, RunFilter(), after=None, limit=10)
    assert {run.run_id: run.parent_run_id for run in everyone} == {
        family.parent.run_id: None,
        family.child.run_id: family.parent.run_id,
    }
    owners = await database.fetch("SELECT run_id, principal_id, max_cost_usd FROM usage_runs")
    assert {owner["run_id"]: (owner["principal_id"], owner["max_cost_usd"]) for owner in owners} == {
        family.parent.run_id: ("system", Decimal(2)),
        family.child.run_id: ("system", None),
    }
