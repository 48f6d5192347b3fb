"""Calls of runs whose version lets replies be given again: when a model is asked, and what is told where it is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from codeagent.artifacts.store import LocalArtifactStore
from codeagent.budgets.reservations import CallReservations
from codeagent.encryption import SecretBox
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.calls import CallEnded, ModelSwitched
from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, Usage
from codeagent.messages.envelope import Message
from codeagent.messages.ids import call_stream
from codeagent.messages.results import ProviderResult
from codeagent.messages.values import AgentDefinition, CachePolicy, Outcome
from codeagent.projections.tally import Tally, tallies_of
from codeagent.providers.breaker import Breaker
from codeagent.providers.pricing import TokenPrices
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.providers.scripted import Answer, ScriptedProvider
from codeagent.response_cache.cache import ResponseCache
from codeagent.telemetry import metrics
from codeagent.workers.call_cache import CallCache
from codeagent.workers.effect import EffectLoop
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.spending import Spending
from tests.integration.workers.system import DIGEST, TENANT, Bench
from tests.integration.workers.test_windows import until

PRICE = TokenPrices(input_usd=Decimal(1), output_usd=Decimal(10))
USED = Usage(input_tokens=1_000, output_tokens=100)
COST = PRICE.cost(USED)
LS = ToolCall(id="call_1", name="shell", arguments='{"command": "ls"}')
DAY = CachePolicy(ttl_seconds=86_400)


def fine(text: str = "Looking. ") -> ModelReply:
    message = AssistantMessage(text=text, tool_calls=(LS,))
    return ModelReply(message, USED, COST, FinishReason.TOOL_CALLS, response_model="m-2026")


def definition(cache: CachePolicy | None) -> AgentDefinition:
    return AgentDefinition(id="agt_1", digest=DIGEST, instructions="", tools=("shell", "submit"), cache=cache)


@dataclass
class Calls:
    """First calls of any number of runs that ask the same, of workers on one database."""

    database: Database
    folder: Path
    script: Callable[[ModelRequest], Answer] = lambda _: fine()
    box: SecretBox = field(default_factory=lambda: SecretBox({"k": bytes(32)}))
    settings_digest: str = "as it is"
    fallbacks: tuple[str, ...] | None = None
    deltas: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = ResponseCache(self.database, self.box)
        self.twins = {name: ScriptedProvider(self.script, name=name, price=PRICE) for name in ("test", "other")}

    @property
    def asked(self) -> list[int]:
        """How often `test` was, and `other`."""
        return [len(twin.requests) for twin in self.twins.values()]

    def resolve(self, label: str) -> tuple[ResilientProvider, str]:
        provider, _, name = label.partition("/")
        return ResilientProvider(self.twins[provider], Breaker(provider), RetryPolicy(max_attempts=1)), name

    async def _send(self, _key: str, value: bytes) -> None:
        self.deltas.append(json.loads(value))

    def worker(self, bench: Bench) -> EffectLoop:
        performer = ProviderPerformer(
            EventLog(self.database),
            LocalArtifactStore(self.folder),
            self.resolve,
            self._send,
            answers_topic="t",
            spending=Spending(CallReservations(self.database)),
            cache=CallCache(self.cache, lambda _: self.settings_digest),
        )
        return bench.provider(cast(Any, performer))

    async def command(self, bench: Bench, cache: CachePolicy | None = DAY, **changes: Any) -> Message:
        """That of a new run's first call."""
        agent, submit = bench.agent(), bench.submit(max_cost_usd=Decimal(1))
        said = {"definition": definition(cache), "fallbacks": self.fallbacks, **changes}
        await agent.handle(replace(submit, data=submit.data.model_copy(update=said)))
        await agent.handle(bench.prepared())
        return bench.mailbox.commands[-1]

    async def call(
        self, cache: CachePolicy | None = DAY, *, tenant_id: str = TENANT, **changes: Any
    ) -> tuple[CallEnded, ProviderResult]:
        bench = Bench(self.database, tenant_id=tenant_id)
        command, worker = await self.command(bench, cache, **changes), self.worker(bench)
        await worker.handle(command)
        await until(lambda: bool(bench.mailbox.answers))
        await worker.drain(5)
        *_, fact = await told(self.database, command)
        [row] = bench.mailbox.answers
        assert isinstance(fact, CallEnded)
        assert isinstance(row.data, ProviderResult)
        return fact, row.data


async def told(database: Database, command: Message) -> list[Any]:
    stored = await EventLog(database).read_stream(call_stream(command.envelope.id))
    return [event.decode() for event in stored]


@pytest.fixture
async def database(newest_database_url: str) -> AsyncIterator[Database]:
    opened = Database(newest_database_url, connections=8)
    yield opened
    await opened.close()


@pytest.fixture
def calls(database: Database, tmp_path: Path) -> Calls:
    return Calls(database, tmp_path)


async def test_the_same_request_is_answered_again_for_nothing_and_nobody_is_asked(calls: Calls) -> None:
    first, first_answer = await calls.call()
    assert (first.cached, first.usage, first.cost_usd) == (None, USED, COST)
    hits = metrics.RESPONSE_CACHE_LOOKUPS.labels("hit")._value.get()
    again, answer = await calls.call()
    assert calls.asked == [1, 0]
    assert (again.cached, again.outcome, again.model, again.response_model) == (True, Outcome.DONE, "test/m", "m-2026")
    assert (again.usage, again.cost_usd, again.attempts) == (Usage(), Decimal(0), ())
    assert (again.request_digest, again.reply_digest) == (first.request_digest, first.reply_digest)
    assert (answer.message, answer.finish_reason) == (first_answer.message, FinishReason.TOOL_CALLS)
    assert (answer.usage, answer.cost_usd) == (Usage(), Decimal(0))
    assert list(tallies_of(again, "")) == [("test/m", Tally(calls=1, cached_calls=1))]
    assert metrics.RESPONSE_CACHE_LOOKUPS.labels("hit")._value.get() == hits + 1


async def test_whoever_watches_sees_its_text_as_that_of_any_other_reply(database: Database, tmp_path: Path) -> None:
    text = "So it goes. " * 3_000
    calls = Calls(database, tmp_path, script=lambda _: fine(text))
    await calls.call()
    calls.deltas.clear()
    await calls.call()
    assert "".join(delta["text"] for delta in calls.deltas) == text
    assert [(delta["attempt"], delta["sequence"]) for delta in calls.deltas] == [(1, 1), (1, 2), (1, 3)]


async def test_a_hit_reserves_nothing_and_teaches_nothing_about_sizes(
    calls: Calls, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[Usage] = []
    monkeypatch.setattr(Spending, "learn", lambda _self, _run_id, _label, _request, usage: learned.append(usage))
    await calls.call()
    await database.write("DELETE FROM call_reservations")
    fact, _ = await calls.call()
    assert fact.cached
    assert not await database.fetch("SELECT FROM call_reservations")
    assert learned == [USED]


async def test_a_version_that_does_not_want_it_neither_has_nor_leaves_anything(calls: Calls) -> None:
    for cache in (None, DAY, None, DAY):
        await calls.call(cache)
    assert calls.asked == [3, 0]


@pytest.mark.parametrize(
    "other", [{"tenant_id": "ten_b"}, {"task": "another"}, {"model": "test/n"}, {"model": "other/m"}]
)
async def test_another_request_or_another_tenant_is_answered_anew(calls: Calls, other: dict[str, str]) -> None:
    await calls.call()
    fact, _ = await calls.call(**cast(Any, other))
    assert (fact.cached, sum(calls.asked)) == (None, 2)


async def test_so_is_one_that_is_put_to_another_service(calls: Calls) -> None:
    await calls.call()
    calls.settings_digest = "elsewhere"
    fact, _ = await calls.call()
    assert fact.cached is None


@pytest.mark.parametrize(
    "reply",
    [
        replace(fine(), finish_reason=FinishReason.LENGTH),
        replace(fine(), finish_reason=FinishReason.CONTENT_FILTER),
        AssistantMessage(text="", tool_calls=(LS.model_copy(update={"arguments": '{"comm'}),)),
        AssistantMessage(text="", tool_calls=(LS.model_copy(update={"name": "rm"}),)),
        ProviderError("no", reason="invalid_request", retryable=False),
    ],
    ids=["cut_off", "filtered", "malformed", "unknown_tool", "failed"],
)
async def test_what_is_not_whole_is_not_given_again(database: Database, tmp_path: Path, reply: Answer) -> None:
    calls = Calls(database, tmp_path, script=lambda _: reply)
    for _ in range(2):
        await calls.call()
    assert calls.asked == [2, 0]
    assert not await database.fetch("SELECT FROM response_cache")


async def test_what_a_model_that_stands_in_replied_is_kept_as_its_own(database: Database, tmp_path: Path) -> None:
    down = ProviderError("down", reason="overloaded", retryable=False, usage=USED, cost_usd=COST)
    calls = Calls(database, tmp_path, fallbacks=("other/m",))
    calls.twins["test"] = ScriptedProvider(lambda _: down, name="test", price=PRICE)
    await calls.call()
    fact, _ = await calls.call()
    # The first model is asked each time, for it may have recovered; what that cost is told.
    assert calls.asked == [2, 1]
    assert (fact.cached, fact.model, fact.usage, fact.cost_usd) == (True, "other/m", USED, COST)
    direct, _ = await calls.call(model="other/m", fallbacks=None)
    assert (direct.cached, direct.cost_usd) == (True, Decimal(0))


async def test_a_hit_whose_claim_is_lost_changes_nothing(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    await calls.call()
    bench, find = Bench(calls.database), calls.cache.find
    command = await calls.command(bench)
    found, go_on = asyncio.Event(), asyncio.Event()

    async def paused(*asked: Any) -> ModelReply | None:
        reply = await find(*asked)
        found.set()
        await go_on.wait()
        return reply

    monkeypatch.setattr(calls.cache, "find", paused)
    monkeypatch.setattr("codeagent.workers.call_cache.PATIENCE_SECONDS", 60.0)
    slow, quick = calls.worker(bench), calls.worker(bench)
    await slow.handle(command)
    await found.wait()
    await bench.database.write("UPDATE effects SET due_at = clock_timestamp() WHERE kind = 'provider'")
    monkeypatch.setattr(calls.cache, "find", find)
    await quick.handle(command)
    await until(lambda: bool(bench.mailbox.answers))
    go_on.set()
    await asyncio.gather(slow.drain(5), quick.drain(5))
    [ended] = await told(bench.database, command)
    assert (ended.attempt, ended.cached, ended.cost_usd) == (2, True, Decimal(0))
    assert (len(bench.mailbox.answers), calls.asked) == (1, [1, 0])


async def test_a_call_that_paid_before_its_hit_says_so(database: Database, tmp_path: Path) -> None:
    answers: list[Answer] = [ProviderError("later", reason="timeout", retryable=True, usage=USED, cost_usd=COST)]
    calls = Calls(database, tmp_path, script=lambda _: answers.pop(0) if answers else fine())
    bench = Bench(database)
    command, worker = await calls.command(bench), calls.worker(bench)
    await worker.handle(command)
    await until(lambda: calls.asked == [1, 0])
    await calls.call()
    await worker.start()
    await until(lambda: bool(bench.mailbox.answers))
    await worker.drain(5)
    [ended] = await told(database, command)
    assert (ended.attempt, ended.cached, ended.usage, ended.cost_usd) == (2, True, USED, COST)
    assert not any(isinstance(fact, ModelSwitched) for fact in await told(database, command))


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug"), None], ids=["away", "bug", "hangs"])
async def test_a_cache_that_cannot_be_asked_is_in_no_calls_way_and_logs_none_of_it(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception | None
) -> None:
    async def fails(*_asked: Any) -> None:
        if error is None:
            await asyncio.Event().wait()
        raise error or AssertionError

    monkeypatch.setattr("codeagent.workers.call_cache.PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(calls.cache, "find", fails)
    monkeypatch.setattr(calls.cache, "keep", fails)
    counters = metrics.RESPONSE_CACHE_LOOKUPS.labels("error"), metrics.RESPONSE_CACHE_STORES.labels("error")
    before = [counter._value.get() for counter in counters]
    fact, _ = await calls.call()
    assert (fact.outcome, fact.cached, fact.cost_usd) == (Outcome.DONE, None, COST)
    assert [counter._value.get() - count for counter, count in zip(counters, before, strict=True)] == [1, 1]
    logged = "".join(capfd.readouterr())
    assert "Looking" not in logged
    assert "command" not in logged


async def test_a_database_without_the_table_has_models_asked(calls: Calls, database: Database) -> None:
    await database.write("DROP TABLE response_cache")
    fact, _ = await calls.call()
    assert (fact.outcome, calls.asked) == (Outcome.DONE, [1, 0])
