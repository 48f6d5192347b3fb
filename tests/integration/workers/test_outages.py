"""Providers that are away for a while: runs wait for them, outside the workers, and no run waits for ever."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest

from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import CancelRun
from codeagent.messages.conversation import AssistantMessage, ToolCall
from codeagent.messages.envelope import Message
from codeagent.messages.results import ProviderResult
from codeagent.messages.values import Outcome
from codeagent.providers.breaker import Breaker, CircuitOpen
from codeagent.providers.protocol import ModelRequest, ProviderError
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.providers.scripted import Answer, Script, ScriptedProvider
from codeagent.workers.deltas import unsent
from codeagent.workers.effect import EffectLoop
from codeagent.workers.provider import ProviderPerformer
from tests.integration.workers.system import Bench
from tests.integration.workers.test_windows import until

SUBMIT = AssistantMessage(tool_calls=(ToolCall(id="c", name="submit", arguments='{"summary": "done"}'),))
RUNS = 8


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


def away(seconds: float | None = None, reason: str = "overloaded") -> ProviderError:
    return ProviderError(reason, reason=reason, retryable=True, retry_after_seconds=seconds)


async def worker_of(bench: Bench, script: Script, folder: Path, breaker: Breaker, **bounds: Any) -> EffectLoop:
    store = LocalArtifactStore(folder)
    await store.start()
    model = ResilientProvider(ScriptedProvider(script), breaker, RetryPolicy(first_wait_seconds=0.01))
    performer = ProviderPerformer(
        EventLog(bench.database), store, lambda label: (model, label), unsent, answers_topic="t"
    )
    worker = bench.provider(cast(Any, performer), **bounds)
    await worker.start()
    return worker


async def asked(bench: Bench) -> Message:
    return await bench.thinking(bench.agent())


def outcomes(bench: Bench) -> list[tuple[Outcome, str]]:
    answers = [row.data for row in bench.mailbox.answers]
    return [(each.outcome, each.error_reason or "") for each in answers if isinstance(each, ProviderResult)]


async def test_every_call_outlasts_an_outage_of_its_only_provider(bench: Bench, tmp_path: Path) -> None:
    back_at = time.monotonic() + 10

    def script(_: ModelRequest) -> Answer:
        return SUBMIT if time.monotonic() > back_at else away()

    worker = await worker_of(bench, script, tmp_path, Breaker("p", open_seconds=3))
    for _ in range(RUNS):
        await worker.handle(await asked(Bench(bench.database, bench.mailbox)))
    await until(lambda: len(bench.mailbox.answers) == RUNS, 60)
    await worker.drain(1)
    assert outcomes(bench) == [(Outcome.DONE, "")] * RUNS
    assert time.monotonic() > back_at


async def test_what_a_provider_asks_to_wait_is_waited_between_claims_without_a_slot(
    bench: Bench, tmp_path: Path
) -> None:
    answers: list[Answer] = [away(300, "rate_limited"), SUBMIT]
    worker = await worker_of(bench, lambda _: answers.pop(0), tmp_path, Breaker("p"), slots=1)
    limited = await asked(bench)
    await worker.handle(limited)
    await until(lambda: len(answers) == 1 and not worker._active)
    await worker.handle(limited)  # said again, as a broker may
    await asyncio.sleep(0.3)
    [row] = await bench.database.fetch(
        "SELECT due_at - clock_timestamp() AS rest, attempt FROM effects WHERE kind = 'provider'"
    )
    assert (300 <= row["rest"].total_seconds() + 1 <= 331, row["attempt"]) == (True, 1)

    await worker.handle(await asked(Bench(bench.database, bench.mailbox)))
    await until(lambda: len(bench.mailbox.answers) == 1)
    assert outcomes(bench) == [(Outcome.DONE, "")], "the only slot was free for another run"
    await worker.drain(1)


@pytest.mark.parametrize("notified", [True, False])
async def test_a_cancel_reaches_a_call_that_rests(bench: Bench, tmp_path: Path, notified: bool) -> None:
    worker = await worker_of(bench, lambda _: away(300), tmp_path, Breaker("p"), lease=30 if notified else 1)
    await worker.handle(await asked(bench))
    await until(lambda: not worker._active)
    other = worker if notified else await worker_of(bench, lambda _: away(300), tmp_path, Breaker("p"), lease=1)
    if not notified:
        await worker.drain(0)  # who let it rest is gone
    await bench.agent().handle(bench.message(CancelRun(run_id=bench.run_id)))
    await until(lambda: bool(bench.mailbox.answers), 3)
    await other.drain(1)
    assert outcomes(bench) == [(Outcome.CANCELED, "")]


async def test_an_open_breaker_costs_no_attempt_until_patience_ends(bench: Bench, tmp_path: Path) -> None:
    breaker = Breaker("p", open_seconds=0.2, failures_to_open=1)
    breaker.restore_open(0)
    worker = await worker_of(bench, lambda _: SUBMIT, tmp_path, breaker, attempts=1)
    await worker.handle(await asked(bench))
    await until(lambda: bool(bench.mailbox.answers))
    await worker.drain(1)
    [answer] = [row.data for row in bench.mailbox.answers]
    assert isinstance(answer, ProviderResult)
    assert (answer.outcome, answer.attempt) == (Outcome.DONE, 1)


async def test_whoever_waits_for_an_open_breaker_comes_to_an_end(bench: Bench, tmp_path: Path) -> None:
    class Open(Breaker):
        def check(self) -> None:
            raise CircuitOpen("p", 0.2)

    worker = await worker_of(bench, lambda _: SUBMIT, tmp_path, Open("p"), attempts=2, patience=1.0)
    await worker.handle(await asked(bench))
    await until(lambda: bool(bench.mailbox.answers), 20)
    await worker.drain(1)
    assert outcomes(bench) == [(Outcome.FAILED, "circuit_open")]
