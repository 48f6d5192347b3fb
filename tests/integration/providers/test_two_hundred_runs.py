"""Two hundred runs over real HTTP, with a provider that fails nearly every third call and breaks down once, and a slow
one that stands in: every run ends well, everything that was counted is paid for once, and no key is seen anywhere."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.budgets.reservations import CallReservations
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import OutboxRow
from codeagent.eventlog.log import EventLog
from codeagent.messages import commands, events, results
from codeagent.messages.calls import CallEnded, ModelSwitched
from codeagent.messages.conversation import Usage
from codeagent.messages.envelope import Envelope, Message
from codeagent.messages.ids import provider_stream, run_stream
from codeagent.messages.values import Outcome
from codeagent.provider_registry.breakers import BreakerJournal
from codeagent.providers.anthropic import AnthropicConnection
from codeagent.providers.breaker import Breaker
from codeagent.providers.keyring import Keyring
from codeagent.providers.openai import OpenAIConnection
from codeagent.providers.pricing import Pricing
from codeagent.providers.probe import Prober
from codeagent.providers.registry import ProviderSettings
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.providers.vendor import Timeouts, VendorProvider
from codeagent.workers.deltas import unsent
from codeagent.workers.effect import EffectLoop
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.spending import Spending
from codeagent.workers.step import StepLoop
from tests.integration.workers.system import DIGEST, TENANT, Bench, answered
from tests.servers.model_server import ModelServer
from tests.servers.providers import PRICES, warm_up
from tests.servers.script import Call, Fault, Reply, Script

RUNS = 200
AT_ONCE = 24
KEY = f"never-to-be-seen-{clock.new_uuid()}"
OPEN_SECONDS = 0.3
DONE = Reply(calls=(Call("submit", '{"summary": "done"}'),))
FAULTS = (
    Fault("status", 503),
    Fault("status", 429, headers=(("retry-after-ms", "5"),)),
    Fault("status", 500),
    Fault("html"),
    Fault("malformed"),
    Fault("end_early"),
    Fault("error_event"),
)
"""Whatever comes before a fault arrives, so that both sides count the same input."""
COUNTED_AT_FIRST = 1
"""Token of output that an answer of the unreliable one says at its beginning that it has used."""
BUDGET_USD = Decimal(3)
"""What about half of the runs come to in the test that has one."""
BREAKDOWN = range(60, 100)
"""Requests, by number, to which it answers nothing but 503."""


class Counting(ModelServer):
    """Counts what it has told its clients that they used, whole replies and broken ones."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(Script([reply]))
        self.used = Usage()

    async def _stream(self, vendor: ModuleType, reply: Reply, turn: int, body: dict[str, Any]) -> AsyncIterator[str]:
        told: dict[str, int] = {}
        try:
            async for event in super()._stream(vendor, reply, turn, body):
                told |= _usage_in(event)
                yield event
        finally:
            self.used = self.used + Usage(**told)


def _usage_in(event: str) -> dict[str, int]:
    """Of either vendor's events: what it says of tokens."""
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
    for line in event.splitlines():
        if line.startswith("data: {") and line.endswith("}"):
            document = json.loads(line.removeprefix("data: "))
            usage = document.get("usage") or document.get("message", {}).get("usage") or {}
            said = {names.get(name, name): count for name, count in usage.items() if isinstance(count, int)}
            return {name: said[name] for name in ("input_tokens", "output_tokens") if name in said}
    return {}


class Unreliable(Counting):
    def __init__(self, reply: Reply = DONE) -> None:
        super().__init__(reply)
        self._reply = reply
        self._drawn = random.Random(11)
        self.failed = 0

    async def _answer(self, request: Request, vendor: ModuleType) -> Response:
        fault = None
        if len(self.received) in BREAKDOWN:
            fault = FAULTS[0]
        elif self._drawn.random() < 0.3:
            fault = self._drawn.choice(FAULTS)
        self.failed += fault is not None
        self.script.load(replace(self._reply, fault=fault))
        return await super()._answer(request, vendor)


@dataclass
class Loopback:
    """What workers hand over goes straight to each other, as a broker would take it there."""

    agent: StepLoop | None = None
    provider: EffectLoop | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def events(self, *_: object) -> None:
        """Nobody watches."""

    def effect(self, kind: str, message: Message) -> None:
        assert self.agent is not None
        assert self.provider is not None
        if kind == "provider":
            self._begin(self.provider.handle(message))
        else:
            self._begin(self.agent.handle(_carried_out(message)))

    def answer(self, row: OutboxRow) -> None:
        assert self.agent is not None
        self._begin(self.agent.handle(answered(row)))

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def _carried_out(message: Message) -> Message:
    """A sandbox that does at once whatever it is asked."""
    command = message.data
    assert isinstance(command, commands.ExecuteOperation)
    result = results.SandboxResult(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=1,
        outcome=Outcome.DONE,
        base=DIGEST if command.operation.kind == "prepare" else None,
        reason="ok",
    )
    asked = message.envelope
    envelope = Envelope(
        clock.new_uuid(), result.NAME, 1, "/test", clock.now(), asked.tenant_id, asked.key, asked.correlation_id
    )
    return Message(envelope, result)


class World:
    """An agent worker and a provider worker on one database, their providers on loopback."""

    def __init__(self, database: Database, unreliable: Unreliable, slow: Counting) -> None:
        self.database = database
        self.journal = BreakerJournal(database, "worker-a")
        timeouts = Timeouts(first_token_seconds=30.0, silence_seconds=30.0)
        self.providers = {
            "unreliable": VendorProvider(
                "unreliable",
                AnthropicConnection(Keyring(lambda: KEY), timeouts, base_url=unreliable.url),
                Pricing("anthropic", unreliable.url, PRICES, 128_000),
                timeouts,
            ),
            "slow": VendorProvider(
                "slow",
                OpenAIConnection("slow", Keyring(lambda: KEY), timeouts, base_url=slow.openai_url),
                Pricing("openai", slow.openai_url, PRICES, 128_000),
                timeouts,
            ),
        }
        policy = RetryPolicy(max_attempts=2, first_wait_seconds=0.01)
        self.guarded = {
            name: ResilientProvider(
                provider, Breaker(name, open_seconds=OPEN_SECONDS, listeners=[self.journal.heard]), policy
            )
            for name, provider in self.providers.items()
        }

    def resolve(self, model: str) -> tuple[ResilientProvider, str]:
        provider, _, name = model.partition("/")
        return self.guarded[provider], name

    async def run_all(self, folder: Path, spending: Spending | None = None) -> list[str]:
        """The runs' ids, once every run has ended."""
        store = LocalArtifactStore(folder)
        await store.start()
        wires = Loopback()
        performer = ProviderPerformer(
            EventLog(self.database), store, self.resolve, unsent, answers_topic="t", spending=spending
        )
        benches = [Bench(self.database, cast(Any, wires)) for _ in range(RUNS)]
        wires.agent, wires.provider = benches[0].agent(), benches[0].provider(cast(Any, performer), slots=AT_ONCE)
        await self.journal.follow([guarded.breaker for guarded in self.guarded.values()])
        await self.journal.start()
        await wires.provider.start()
        models = {"model": "unreliable/model-x", "fallbacks": ("slow/model-x",)}
        for bench in benches:
            submit = bench.submit()
            await wires.agent.handle(Message(submit.envelope, submit.data.model_copy(update=models)))
        ended = "SELECT count(*) FROM events WHERE event_type IN ('run.completed', 'run.failed', 'run.canceled')"
        async with asyncio.timeout(180):
            while (await self.database.fetch(ended))[0][0] < RUNS:
                await asyncio.sleep(0.05)
        await wires.provider.drain(5)
        return [bench.run_id for bench in benches]

    async def recover(self, url: str) -> None:
        """Nobody calls any more: whether the provider is back is looked at as an idle worker does."""
        breaker = self.guarded["unreliable"].breaker
        settings = ProviderSettings(name="unreliable", kind="anthropic", base_url=url)
        prober = Prober(settings, breaker, idle_seconds=OPEN_SECONDS)
        async with asyncio.timeout(30):
            while breaker.state != "closed":
                await asyncio.sleep(OPEN_SECONDS)
                await prober.look()

    async def close(self) -> None:
        await self.journal.stop()
        for provider in self.providers.values():
            await provider.close()


async def test_every_run_ends_well_the_bill_is_right_and_no_key_is_seen(
    database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with Unreliable() as unreliable, Counting(Reply(calls=DONE.calls, delay_seconds=0.2)) as slow:
        with ModelServer() as warm:
            await warm_up(warm)
        world = World(database, unreliable, slow)
        run_ids = await world.run_all(tmp_path)
        await world.recover(unreliable.url)
        await world.close()

    log = [event.decode() for event in await _all_events(database)]
    ends = [event for event in log if isinstance(event, events.RunEnded)]
    assert [type(event) for event in ends] == [events.RunCompleted] * RUNS
    assert unreliable.failed / len(unreliable.received) >= 0.28
    assert slow.used != Usage(), "somebody had to stand in"
    assert any(isinstance(event, ModelSwitched) for event in log)

    served = unreliable.used + slow.used
    calls = [event for event in log if isinstance(event, CallEnded)]
    assert len(calls) == RUNS
    guessed = [attempt for call in calls for attempt in call.attempts or () if attempt.estimated]
    assert guessed, "some answers broke off after something had come"
    beyond = sum(attempt.usage.output_tokens - COUNTED_AT_FIRST for attempt in guessed)
    used = served + Usage(output_tokens=beyond)
    assert _sum(call.usage for call in calls) == _sum(end.usage for end in ends) == used
    cost = _cost(used)
    assert sum((call.cost_usd or Decimal(0) for call in calls), Decimal(0)) == cost
    assert sum((end.cost_usd for end in ends), Decimal(0)) == cost

    breakers = [event.type for event in await EventLog(database).read_stream(provider_stream("unreliable"))]
    assert breakers[0] == "provider.breaker_opened"
    assert breakers[-1] == "provider.breaker_closed"
    for run_id in run_ids:
        story = await EventLog(database).read_stream(run_stream(run_id))
        assert [event.version for event in story] == list(range(1, len(story) + 1))

    written = capfd.readouterr()
    for text in (written.out, written.err, caplog.text, *(str(event) for event in log)):
        assert KEY not in text
    assert {received.api_key for received in (*unreliable.received, *slow.received)} == {KEY}


async def test_what_runs_spend_never_passes_the_budget_of_their_tenant(database: Database, tmp_path: Path) -> None:
    await database.write(
        """INSERT INTO budgets (id, tenant_id, version, name, scope, period, unit, amount, action, fingerprint)
           VALUES ('bud_load', $1, 1, 'b', 'tenant', 'total', 'usd', $2, 'refuse', 'f')""",
        TENANT,
        BUDGET_USD,
    )
    dear = replace(DONE, input_tokens=3_000, output_tokens=500)
    with Unreliable(dear) as unreliable, Counting(replace(dear, delay_seconds=0.05)) as slow:
        with ModelServer() as warm:
            await warm_up(warm)
        world = World(database, unreliable, slow)
        await world.run_all(tmp_path, Spending(CallReservations(database)))
        await world.close()

    ends = [
        event
        for event in [stored.decode() for stored in await _all_events(database)]
        if isinstance(event, events.RunEnded)
    ]
    assert len(ends) == RUNS
    reasons = Counter(end.status_reason if isinstance(end, events.RunFailed) else "completed" for end in ends)
    assert set(reasons) == {"completed", "budget_exhausted"}
    cost = _cost(_sum(end.usage for end in ends))
    assert sum((end.cost_usd for end in ends), Decimal(0)) == cost
    assert _cost(unreliable.used + slow.used) < cost, "what broke off is estimated on top, and in the budget as well"
    assert BUDGET_USD * Decimal("0.8") < cost <= BUDGET_USD


async def _all_events(database: Database) -> list[Any]:
    log, found = EventLog(database), []
    streams = await database.fetch("SELECT DISTINCT stream_id FROM events WHERE stream_id !~ '^provider-'")
    for row in streams:
        found += await log.read_stream(row["stream_id"])
    return found


def _cost(usage: Usage) -> Decimal:
    [price] = PRICES["model-x"]
    return (usage.input_tokens * price.input_usd + usage.output_tokens * price.output_usd) / 1_000_000


def _sum(usages: Any) -> Usage:
    return sum(usages, Usage())
