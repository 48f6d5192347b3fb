"""A model call of a run whose conversation has grown too long: what the model is asked, and what the run is told of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.effects import Claim
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import GenerateReply
from codeagent.messages.conversation import AssistantMessage, ToolCall
from codeagent.messages.envelope import Envelope, Event, Message
from codeagent.messages.events import MessageCompleted
from codeagent.messages.loop_events import RunCompacted
from codeagent.messages.results import ProviderResult
from codeagent.providers.breaker import Breaker
from codeagent.providers.protocol import ModelRequest
from codeagent.providers.retry import ResilientProvider
from codeagent.providers.scripted import ScriptedProvider
from codeagent.workers.deltas import unsent
from codeagent.workers.effect import Work
from codeagent.workers.provider import ProviderPerformer
from tests.unit.agent.scenario import RUN, Scenario, call

TENANT = "ten_a"
WINDOW = 16_000
DIFF = "diff --git a/a.py b/a.py\n+what was changed so far\n"


@dataclass
class Stored:
    event: Event
    tenant_id: str = TENANT

    def decode(self) -> Event:
        return self.event


class Stream:
    """The run's stream, as far as its events have come."""

    def __init__(self, run: Scenario) -> None:
        self._run = run

    async def read_stream(self, _stream_id: str, after: int, most: int) -> list[Stored]:
        return [Stored(event) for event in self._run.events[after : after + most]]


class Worker:
    def __init__(self, run: Scenario, store: LocalArtifactStore) -> None:
        self._run = run
        self._provider = ScriptedProvider(lambda _: "go on", context_window=WINDOW)
        model = ResilientProvider(self._provider, Breaker("scripted"))
        log = cast(EventLog, Stream(run))
        self._performer = ProviderPerformer(log, store, lambda _: (model, "m"), unsent, answers_topic="t")

    async def answers(self) -> tuple[ModelRequest, ProviderResult]:
        command = self._run.open_effect.command
        assert isinstance(command, GenerateReply)
        effect_id = command.effect_id
        envelope = Envelope(effect_id, command.NAME, 1, "/test", clock.now(), TENANT, RUN, effect_id)
        ended = await self._performer.perform(
            Work(Message(envelope, command), Claim(effect_id, clock.new_uuid(), 1, False))
        )
        assert isinstance(ended.answer, ProviderResult)
        return self._provider.requests[-1], ended.answer


async def long_run(store: LocalArtifactStore) -> Scenario:
    """One whose replies alone are longer than the window."""
    checkpoint = await store.put(TENANT, DIFF.encode())
    run = Scenario()
    run.prepared()
    for number in range(40):
        run.model(call("shell", f"c{number}", command=f"step {number}"), text="t" * 1_500)
        run.sandbox(output=f"out {number}", checkpoint=checkpoint)
    return run


async def test_the_model_is_asked_within_its_window_and_told_the_diff_and_the_run_records_the_compaction(
    tmp_path: Path,
) -> None:
    store = LocalArtifactStore(tmp_path)
    await store.start()
    run = await long_run(store)
    request, answer = await Worker(run, store).answers()
    assert "what was changed so far" in request.messages[2].text
    assert request.messages[-1].text == "out 39"
    assert answer.compaction is not None
    assert answer.compaction.exchanges_until > 0
    decision = run.when(answer)
    recorded, message = decision.events[:2]
    assert isinstance(recorded, RunCompacted)
    assert recorded.compaction == answer.compaction
    assert isinstance(message, MessageCompleted)


async def test_another_worker_asks_the_same_from_the_stream_alone(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)
    await store.start()
    run = await long_run(store)
    worker = Worker(run, store)
    first, answer = await worker.answers()
    run.when(answer.model_copy(update={"message": AssistantMessage(tool_calls=(call("shell", "d", command="x"),))}))
    run.sandbox(output="y")
    here, there = [(await each.answers())[0] for each in (worker, Worker(run, store))]
    assert here == there
    assert here.messages[: len(first.messages)] == first.messages, "it begins as the call before"


async def test_arguments_that_leave_no_room_are_told_to_have_been_too_long(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)
    await store.start()
    fits = await store.put(TENANT, json.dumps({"path": "a", "content": "c" * 5_000}).encode())
    does_not = await store.put(TENANT, json.dumps({"path": "b", "content": "c" * 5_000_000}).encode())
    run = Scenario()
    run.prepared()
    run.model(
        *(
            ToolCall(id=name, name="write_file", arguments="", arguments_ref=ref)
            for name, ref in (("a", fits), ("b", does_not))
        )
    )
    run.sandbox(output="wrote")
    run.sandbox(output="wrote")
    request, _ = await Worker(run, store).answers()
    reply = next(message for message in request.messages if isinstance(message, AssistantMessage))
    first, second = (json.loads(each.arguments) for each in reply.tool_calls)
    assert first == {"path": "a", "content": "c" * 5_000}
    assert second == {"left_out": "the arguments were too long to be kept"}
