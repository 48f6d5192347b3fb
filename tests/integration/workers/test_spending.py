"""Runs that spend at once, on real workers: what they may not pass they do not, and each says why it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.budgets.reservations import CallReservations
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages import commands, results
from codeagent.messages.calls import CallEnded
from codeagent.messages.conversation import AssistantMessage, ToolCall, Usage
from codeagent.messages.ids import typed_id
from codeagent.messages.subagents import SubagentResult
from codeagent.messages.values import Outcome, RunStatus
from codeagent.projections.view import RunView
from codeagent.providers.breaker import Breaker
from codeagent.providers.pricing import TokenPrices
from codeagent.providers.protocol import ModelReply, ModelRequest, Price, ProviderError
from codeagent.providers.retry import ResilientProvider
from codeagent.providers.scripted import Answer, ScriptedProvider
from codeagent.workers.deltas import unsent
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.spending import LEAST_OUTPUT_TOKENS, Spending
from tests.integration.workers.system import TENANT, Bench
from tests.integration.workers.test_children import Family

PRICE = TokenPrices(input_usd=Decimal(1), output_usd=Decimal(10))


def dear(request: ModelRequest) -> ModelReply:
    """Uses all that it may."""
    usage = Usage(input_tokens=2_000, output_tokens=request.max_output_tokens)
    call = ToolCall(id=f"c{len(request.messages)}", name="shell", arguments='{"command": "ls"}')
    return ModelReply(AssistantMessage(tool_calls=(call,)), usage, PRICE.cost(usage))


@dataclass
class Workers:
    """Of any number of runs, which go on until they have ended or a number of calls has been made."""

    database: Database
    folder: Path
    price: Price | None = PRICE
    script: Callable[[ModelRequest], Answer] = dear
    claims_again: bool = False
    """Whether what may pass is tried as another claim, of which one run at a time can be sure that it is its own."""
    provider: ScriptedProvider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = ScriptedProvider(self.script, price=self.price)
        model = ResilientProvider(self.provider, Breaker("scripted"), sleep=at_once)
        self.performer = ProviderPerformer(
            EventLog(self.database),
            LocalArtifactStore(self.folder),
            lambda name: (model, name),
            unsent,
            answers_topic="t",
            spending=Spending(CallReservations(self.database)),
        )

    async def run(self, most_calls: int, **limits: object) -> RunView:
        bench = Bench(self.database, run_id=typed_id("run", clock.new_uuid()))
        agent, provider = bench.agent(), bench.provider(self.performer)  # type: ignore[arg-type]  # performs as any
        if self.claims_again:
            await provider.start()
        await agent.handle(bench.submit(**limits))
        await agent.handle(bench.prepared())
        for _ in range(most_calls):
            command = bench.mailbox.commands[-1]
            await provider.handle(command)
            async with asyncio.timeout(30):
                while not bench.mailbox.answers:
                    await asyncio.sleep(0.005)
            answer = bench.mailbox.answers.pop()
            await agent.handle(replace(bench.message(answer.data, answer.id), envelope=answer.envelope))
            asked = bench.mailbox.commands[-1].data
            assert isinstance(asked, commands.ExecuteOperation)
            result = results.SandboxResult(
                effect_id=asked.effect_id, run_id=bench.run_id, attempt=1, outcome=Outcome.DONE, reason="ok"
            )
            await agent.handle(bench.message(result, clock.new_uuid()))
            if isinstance(bench.mailbox.commands[-1].data, commands.ExecuteOperation):
                break
        await provider.drain(1)
        view = RunView(bench.run_id, TENANT)
        for stored in await EventLog(self.database).read_stream(f"run-{bench.run_id}"):
            view.apply(stored)
        return view


async def at_once(_seconds: float) -> None: ...


async def costs(database: Database) -> list[Decimal]:
    """Of every call in the log."""
    rows = await database.fetch("SELECT stream_id FROM events WHERE event_type = 'provider.call.ended'")
    told = [(await EventLog(database).read_stream(row["stream_id"]))[-1].decode() for row in rows]
    return [fact.cost_usd or Decimal(0) for fact in told if isinstance(fact, CallEnded)]


async def budget(database: Database, usd: str) -> str:
    budget_id = typed_id("bud", clock.new_uuid())
    await database.write(
        """INSERT INTO budgets (id, tenant_id, version, name, scope, period, unit, amount, action, fingerprint)
           VALUES ($1, $2, 1, 'b', 'tenant', 'total', 'usd', $3, 'refuse', 'f')""",
        budget_id,
        TENANT,
        Decimal(usd),
    )
    return budget_id


async def test_runs_that_call_at_once_do_not_spend_more_than_their_tenant_has(
    database: Database, tmp_path: Path
) -> None:
    budget_id = await budget(database, "0.50")
    workers = Workers(database, tmp_path)
    runs = await asyncio.gather(*(workers.run(most_calls=2) for _ in range(8)))
    total = sum(run.cost_usd for run in runs)
    assert total <= Decimal("0.50")
    assert total > Decimal("0.30"), "and what there is can be spent"
    refused = [run for run in runs if run.status_reason]
    assert refused
    assert {run.status_reason for run in refused} == {"budget_exhausted"}
    assert all(budget_id in run.message for run in refused)


async def test_a_run_never_passes_its_own_limit_and_its_last_reply_is_a_shorter_one(
    newest_database_url: str, tmp_path: Path
) -> None:
    database = Database(newest_database_url, connections=4)
    workers = Workers(database, tmp_path)
    run = await workers.run(most_calls=9, max_cost_usd="0.20")
    asked = [request.max_output_tokens for request in workers.provider.requests]
    assert (asked[0], LEAST_OUTPUT_TOKENS <= asked[-1] < asked[0]) == (8_192, True)
    assert Decimal("0.15") < run.cost_usd <= Decimal("0.20")
    assert (run.status, run.status_reason) == ("failed", "budget_exceeded")
    assert run.message.startswith("The run has 0.0")
    await database.close()


async def test_what_its_children_have_spent_is_off_a_runs_limit(newest_database_url: str, tmp_path: Path) -> None:
    database = Database(newest_database_url, connections=4)
    family = Family(database)
    agent = await family.begin(max_cost_usd="1")
    parent = family.parent
    started = family.order.data
    assert isinstance(started, commands.SubmitRun)
    assert started.parent is not None
    result = SubagentResult(
        effect_id=started.parent.effect_id,
        run_id=parent.run_id,
        child_run_id=started.run_id,
        status=RunStatus.FAILED,
        cost_usd=Decimal("0.995"),
    )
    await agent.handle(parent.message(result, clock.new_uuid()))
    provider = parent.provider(Workers(database, tmp_path).performer)  # type: ignore[arg-type]  # performs as any
    parent.mailbox.answers.clear()
    await provider.handle(parent.mailbox.commands[-1])
    async with asyncio.timeout(30):
        while not parent.mailbox.answers:
            await asyncio.sleep(0.005)
    answer = parent.mailbox.answers[0].data
    assert isinstance(answer, results.ProviderResult)
    assert (answer.outcome, answer.error_reason) == (Outcome.FAILED, "budget_exceeded")
    await provider.drain(1)
    await database.close()


async def test_attempts_that_failed_are_paid_for_out_of_the_same_limit(
    newest_database_url: str, tmp_path: Path
) -> None:
    """Each uses all that it may, and then the vendor is overloaded."""
    database = Database(newest_database_url, connections=4)

    def failing(request: ModelRequest) -> ProviderError:
        usage = Usage(input_tokens=2_000, output_tokens=request.max_output_tokens)
        cost = PRICE.cost(usage)
        return ProviderError("busy", reason="overloaded", retryable=True, usage=usage, cost_usd=cost)

    workers = Workers(database, tmp_path, script=failing, claims_again=True)
    run = await workers.run(most_calls=1, max_cost_usd="0.20")
    asked = [request.max_output_tokens for request in workers.provider.requests]
    assert (len(asked), asked[0]) == (3, 8_192)
    assert LEAST_OUTPUT_TOKENS <= asked[-1] < 8_192, "what the ones before it have cost is not there any more"
    [usd] = await costs(database)
    assert Decimal("0.15") < usd <= Decimal("0.20")
    assert run.cost_usd == usd
    await database.close()


async def test_a_limit_in_dollars_needs_a_price(newest_database_url: str, tmp_path: Path) -> None:
    database = Database(newest_database_url, connections=4)
    await budget(database, "0.01")
    workers = Workers(database, tmp_path, price=None)
    run = await workers.run(most_calls=2, max_cost_usd="1")
    assert (run.status_reason, workers.provider.requests) == ("price_unknown", []), "before anything was spent"
    assert (await workers.run(most_calls=1)).status_reason == "", "without one, dollars are not counted"
    await database.close()
