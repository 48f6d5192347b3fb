"""Model calls on the ledger: what their attempts used is paid for once, whichever worker tried, and however often it is
said."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from codeagent.artifacts.store import LocalArtifactStore
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim, EffectsLedger
from codeagent.eventlog.log import EventLog
from codeagent.messages import events
from codeagent.messages.calls import CallEnded, MessageFailed, ModelSwitched
from codeagent.messages.commands import GenerateReply
from codeagent.messages.conversation import AssistantMessage, ToolCall, Usage
from codeagent.messages.envelope import Message
from codeagent.messages.ids import call_stream, run_stream
from codeagent.messages.values import Outcome
from codeagent.providers.breaker import Breaker
from codeagent.providers.limits import CallLimiter, CallLimits
from codeagent.providers.protocol import ModelReply, ProviderError
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.providers.scripted import After, Answer, ScriptedProvider
from codeagent.workers.deltas import Send, unsent
from codeagent.workers.effect import EffectLoop
from codeagent.workers.provider import ProviderPerformer
from tests.integration.workers.system import Bench, answered
from tests.integration.workers.test_windows import until
from tests.servers.model_server import ModelServer
from tests.servers.providers import over_http
from tests.servers.script import Fault, Reply

FALLBACKS = ("other/m",)
USED = Usage(input_tokens=100, output_tokens=10)
SHELL = AssistantMessage(tool_calls=(ToolCall(id="c", name="shell", arguments='{"command": "ls"}'),))


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


def failed(reason: str, cost: str) -> ProviderError:
    return ProviderError(reason, reason=reason, retryable=True, usage=USED, cost_usd=Decimal(cost))


def fine(cost: str) -> ModelReply:
    return ModelReply(SHELL, USED, Decimal(cost))


class Providers:
    """Providers by name, each answering from its own list whoever asks."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.left = answers
        self.models = {name: self._provider(name) for name in answers}

    def _provider(self, name: str) -> ResilientProvider:
        twin = ScriptedProvider(lambda _: self.left[name].pop(0), name=name)
        return ResilientProvider(twin, Breaker(name), RetryPolicy(max_attempts=1))

    def resolve(self, model: str) -> tuple[ResilientProvider, str]:
        provider, _, name = model.partition("/")
        return self.models[provider], name


async def worker_of(
    bench: Bench, providers: Providers, folder: Path, send: Send = unsent, *, record_calls: bool = False
) -> EffectLoop:
    store = LocalArtifactStore(folder)
    await store.start()
    log = EventLog(bench.database)
    performer = ProviderPerformer(log, store, providers.resolve, send, answers_topic="t", record_calls=record_calls)
    worker = bench.provider(cast(Any, performer))
    await worker.start()
    return worker


async def first_call(bench: Bench, model: str) -> Message:
    """Of a run with that model and no other."""
    submit = bench.submit()
    await bench.agent().handle(Message(submit.envelope, submit.data.model_copy(update={"model": model})))
    await bench.agent().handle(bench.prepared())
    return bench.mailbox.commands[-1]


async def asked(bench: Bench) -> Message:
    """A run's first model call, with a model that stands in."""
    agent = bench.agent()
    submit = bench.submit()
    await agent.handle(Message(submit.envelope, submit.data.model_copy(update={"fallbacks": FALLBACKS})))
    await agent.handle(bench.prepared())
    command = bench.mailbox.commands[-1]
    assert isinstance(command.data, GenerateReply)
    assert command.data.fallbacks == FALLBACKS
    return command


async def told(bench: Bench, command: Message) -> list[Any]:
    stored = await EventLog(bench.database).read_stream(call_stream(command.envelope.id))
    return [event.decode() for event in stored]


async def run_events(bench: Bench) -> list[Any]:
    return [event.decode() for event in await EventLog(bench.database).read_stream(run_stream(bench.run_id))]


async def test_what_a_claim_used_in_vain_is_paid_for_with_the_next_and_once(bench: Bench, tmp_path: Path) -> None:
    command = await asked(bench)
    providers = Providers(test=[failed("timeout", "0.10"), fine("0.30")], other=[failed("overloaded", "0.20")])
    first = await worker_of(bench, providers, tmp_path)
    await first.handle(command)
    await until(lambda: bool(bench.mailbox.answers))
    second = await worker_of(bench, providers, tmp_path)
    for worker in (first, second, first):
        await worker.handle(command)

    switched, ended = await told(bench, command)
    assert isinstance(switched, ModelSwitched)
    assert (switched.from_model, switched.to_model, switched.reason) == ("test/m", "other/m", "timeout")
    assert isinstance(ended, CallEnded)
    assert (ended.attempt, ended.model, ended.usage) == (2, "test/m", USED + USED + USED)
    assert ended.cost_usd == Decimal("0.60")
    assert ended.attempts is not None
    assert [(each.provider, each.reason) for each in ended.attempts] == [
        ("test", "timeout"),
        ("other", "overloaded"),
        ("test", None),
    ]
    for _ in range(3):
        await bench.agent().handle(answered(bench.mailbox.answers[0]))
    messages = [event for event in await run_events(bench) if isinstance(event, events.MessageCompleted)]
    assert [(event.usage, event.cost_usd) for event in messages] == [(ended.usage, Decimal("0.60"))]
    await asyncio.gather(first.drain(1), second.drain(1))


async def test_a_worker_that_stops_tells_the_next_what_it_has_used(bench: Bench, tmp_path: Path) -> None:
    command = await asked(bench)
    providers = Providers(test=[failed("timeout", "0.10"), fine("0.30")], other=[After(60, "too late")])
    leaving = await worker_of(bench, providers, tmp_path)
    await leaving.handle(command)
    await until(lambda: not providers.left["other"])
    await leaving.drain(0.1)
    staying = await worker_of(bench, providers, tmp_path)
    await until(lambda: bool(bench.mailbox.answers))
    await staying.drain(1)

    *_, ended = await told(bench, command)
    assert (ended.attempt, ended.cost_usd, len(ended.attempts)) == (1, Decimal("0.40"), 2)


async def test_a_call_that_is_canceled_is_paid_for_as_far_as_its_answer_had_come(bench: Bench, tmp_path: Path) -> None:
    with ModelServer() as server:
        vendor = over_http("anthropic", server)
        server.script.load(Reply(text="It is as follows.", input_tokens=1_000, fault=Fault("hang_mid")))
        providers = Providers(test=[], other=[])
        providers.models["test"] = ResilientProvider(vendor, Breaker("acme"))
        heard = asyncio.Event()

        async def hear(_key: str, _delta: bytes) -> None:
            heard.set()

        command = await asked(bench)
        worker = await worker_of(bench, providers, tmp_path, hear)
        await worker.handle(command)
        await asyncio.wait_for(heard.wait(), 30)
        await bench.database.write("UPDATE effects SET cancel_requested = true WHERE kind = 'provider'")
        worker.notified(bench.run_id)
        await until(lambda: bool(bench.mailbox.answers))
        await worker.drain(1)
        await vendor.close()

    [ended] = await told(bench, command)
    [attempt] = ended.attempts
    assert (ended.outcome, attempt.reason) == (Outcome.CANCELED, "canceled")
    assert ended.usage == attempt.usage == Usage(input_tokens=1_000, output_tokens=3)
    assert attempt.estimated


async def test_what_was_used_is_told_the_next_claim_also_where_the_database_was_away_for_a_moment(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = await asked(bench)
    providers = Providers(test=[failed("timeout", "0.10"), fine("0.30")], other=[failed("overloaded", "0.20")])
    expire, tries = EffectsLedger.expire, 0

    async def away_once(ledger: EffectsLedger, claim: Claim, *rest: Any, **counted: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable("the database is away")
        await expire(ledger, claim, *rest, **counted)

    monkeypatch.setattr(EffectsLedger, "expire", away_once)
    worker = await worker_of(bench, providers, tmp_path)
    await worker.handle(command)
    await until(lambda: bool(bench.mailbox.answers))
    await worker.drain(1)
    [*_, ended] = await told(bench, command)
    assert (tries, ended.cost_usd) == (2, Decimal("0.60"))


async def test_a_call_that_fails_for_good_is_counted_in_the_run(bench: Bench, tmp_path: Path) -> None:
    command = await asked(bench)
    refused = ProviderError("no", reason="invalid_request", retryable=False)
    worker = await worker_of(bench, Providers(test=[failed("timeout", "0.10")], other=[refused]), tmp_path)
    # What may pass would be tried again: this is the last claim that there may be.
    await bench.database.write("UPDATE effects SET attempt = 3 WHERE kind = 'provider'")
    await worker.handle(command)
    await until(lambda: bool(bench.mailbox.answers))
    for _ in range(2):
        await bench.agent().handle(answered(bench.mailbox.answers[0]))
    await worker.drain(1)
    failures = [event for event in await run_events(bench) if isinstance(event, MessageFailed)]
    assert [(event.model, event.reason, event.cost_usd) for event in failures] == [
        ("other/m", "invalid_request", Decimal("0.10"))
    ]
    *_, ended = await told(bench, command)
    assert (ended.outcome, ended.reply_digest, ended.request_digest[:7]) == (Outcome.FAILED, "", "sha256:")


async def test_calls_that_wait_for_a_provider_hold_up_none_to_another(bench: Bench, tmp_path: Path) -> None:
    providers = Providers(slow=[After(60, "late")] * 8, quick=[fine("0.10")])
    slow = providers.models["slow"]
    providers.models["slow"] = ResilientProvider(
        slow._provider, slow.breaker, limiter=CallLimiter("slow", CallLimits(concurrency=1))
    )
    worker = await worker_of(bench, providers, tmp_path)  # of four slots
    for _ in range(8):
        await worker.handle(await first_call(Bench(bench.database, bench.mailbox), "slow/m"))
    await until(lambda: len(worker._active) == 8)
    await worker.handle(await first_call(Bench(bench.database, bench.mailbox), "quick/m"))
    await until(lambda: bool(bench.mailbox.answers))
    assert answered(bench.mailbox.answers[0]).data.model == "quick/m"
    await worker.drain(0.1)
