"""Live text is sent while it is written, except to tenants for whom that is switched off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import ExecuteOperation, GenerateReply
from codeagent.messages.conversation import ToolCall
from codeagent.messages.envelope import Command, Envelope, Message
from codeagent.messages.values import BASE_CHECKPOINT, CallTool, Outcome
from codeagent.providers.breaker import Breaker
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError, TextSink
from codeagent.providers.retry import ResilientProvider, RetryPolicy
from codeagent.providers.scripted import ScriptedProvider
from codeagent.sandboxes.scripted import Scripted, ScriptedDriver
from codeagent.workers.bounds import Bounds
from codeagent.workers.deltas import GATHER_SECONDS
from codeagent.workers.effect import Performer, Work
from codeagent.workers.ended import Ended
from codeagent.workers.provider import ProviderPerformer
from codeagent.workers.sandbox import SandboxPerformer
from tests.acceptance.checks import archive_of

QUIET = "ten_quiet"


class Sent:
    """What went out live."""

    def __init__(self) -> None:
        self.deltas: list[dict[str, object]] = []

    async def __call__(self, key: str, value: bytes) -> None:
        self.deltas.append(json.loads(value))


def is_live(tenant_id: str) -> bool:
    return tenant_id != QUIET


async def perform(performer: Performer, command: Command, tenant_id: str) -> Ended:
    effect_id = clock.new_uuid()
    envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), tenant_id, "run_1", effect_id)
    return await performer.perform(Work(Message(envelope, command), Claim(effect_id, clock.new_uuid(), 1, False)))


@pytest.mark.parametrize(("tenant_id", "live"), [("ten_a", True), (QUIET, False)])
async def test_text_of_a_model(tmp_path: Path, tenant_id: str, live: bool) -> None:
    sent, store = Sent(), LocalArtifactStore(tmp_path)
    await store.start()
    model = ResilientProvider(ScriptedProvider(["a few words of text"]), Breaker("scripted"))
    log = cast(EventLog, None)  # the command is at version 0: there is nothing to read
    performer = ProviderPerformer(log, store, lambda _: (model, "m"), sent, answers_topic="t", is_live=is_live)
    command = GenerateReply(
        effect_id=clock.new_uuid(), run_id="run_1", at_version=0, model="scripted/m", max_output_tokens=100
    )
    ended = await perform(performer, command, tenant_id)
    assert ended.answer.outcome is Outcome.DONE
    assert "".join(str(delta["text"]) for delta in sent.deltas) == ("a few words of text" if live else "")


class TwoKeys:
    """A provider that writes a little with each of its keys, and then refuses the first and fails with the other."""

    name = "two"

    def __init__(self) -> None:
        self.attempts = 0

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply:
        self.attempts += 1
        await on_text(f"text {self.attempts}")
        await asyncio.sleep(2 * GATHER_SECONDS)
        first = self.attempts % 2 == 1
        error = ProviderError("no", reason="rate_limited" if first else "overloaded", retryable=True)
        error.has_other_key = first
        raise error

    def context_window(self, model: str) -> int:
        return 100_000

    def price(self, model: str) -> None:
        return None

    async def close(self) -> None: ...


@pytest.mark.parametrize("counted", [True, False], ids=["died", "gave it back"])
async def test_no_two_attempts_write_under_one_number_whatever_claim_they_are_of(tmp_path: Path, counted: bool) -> None:
    sent, store, two = Sent(), LocalArtifactStore(tmp_path), TwoKeys()
    await store.start()
    model = ResilientProvider(two, Breaker("two", failures_to_open=99), RetryPolicy(first_wait_seconds=0.001))
    performer = ProviderPerformer(cast(EventLog, None), store, lambda _: (model, "m"), sent, answers_topic="t")
    effect_id = clock.new_uuid()
    command = GenerateReply(effect_id=effect_id, run_id="run_1", at_version=0, model="two/m", max_output_tokens=100)
    message = Message(Envelope(effect_id, command.NAME, 1, "/test", clock.now(), "ten_a", "run_1", effect_id), command)
    memo = None
    for claim in range(1, 4):
        attempt, kept = (claim, None) if counted else (1, memo)
        work = Work(message, Claim(effect_id, clock.new_uuid(), attempt, False, kept))
        with pytest.raises(ProviderError):
            await performer.perform(work)
        memo = work.memo
    assert two.attempts == 18, "three tries a claim, each with both keys"
    numbers = [(delta["attempt"], delta["text"]) for delta in sent.deltas]
    assert [text for _, text in numbers] == [f"text {number}" for number in range(1, 19)]
    assert [number for number, _ in numbers] == sorted({number for number, _ in numbers})  # type: ignore[type-var]


@pytest.mark.parametrize(("tenant_id", "live"), [("ten_a", True), (QUIET, False)])
async def test_output_of_a_command(tmp_path: Path, tenant_id: str, live: bool) -> None:
    sent, store = Sent(), LocalArtifactStore(tmp_path)
    await store.start()
    driver = ScriptedDriver(lambda *_: Scripted(stdout=b"printed\n"))
    performer = SandboxPerformer(
        driver, store, sent, answers_topic="t", limits=Bounds(), most_workspaces=1, is_live=is_live
    )
    command = ExecuteOperation(
        effect_id=clock.new_uuid(),
        run_id="run_1",
        base=await store.put(tenant_id, archive_of({"a": "a"})),
        checkpoint=BASE_CHECKPOINT,
        operation=CallTool(call=ToolCall(id="c", name="shell", arguments='{"command": "true"}'), timeout_seconds=10),
    )
    ended = await perform(performer, command, tenant_id)
    assert ended.answer.outcome is Outcome.DONE
    assert [delta["text"] for delta in sent.deltas] == (["printed\n"] if live else [])
    await performer.close()
