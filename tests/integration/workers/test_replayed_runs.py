"""A run that replays another: what its model is asked first, and what it has its files from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.eventlog.database import Database
from codeagent.eventlog.log import EventLog
from codeagent.messages.commands import ExecuteOperation, GenerateReply, SubmitRun
from codeagent.messages.conversation import AssistantMessage, SystemMessage, ToolCall, ToolMessage, UserMessage
from codeagent.messages.envelope import Message
from codeagent.messages.events import StepStarted
from codeagent.messages.ids import derived_uuid, run_stream
from codeagent.messages.results import ProviderResult, SandboxResult
from codeagent.messages.values import AgentDefinition, Files, Outcome, PrepareFiles, Replays
from codeagent.providers.breaker import Breaker
from codeagent.providers.protocol import ModelRequest
from codeagent.providers.retry import ResilientProvider
from codeagent.providers.scripted import ScriptedProvider
from codeagent.workers.deltas import unsent
from codeagent.workers.effect import EffectLoop
from codeagent.workers.provider import ProviderPerformer
from tests.integration.workers.system import DIGEST, TENANT, Bench, answered
from tests.integration.workers.test_windows import until

CHANGED = "sha256:" + "c" * 64
LS = ToolCall(id="c", name="shell", arguments='{"command": "ls"}')
OTHER = AgentDefinition(
    id="agt_1", digest="sha256:" + "e" * 64, instructions="Be brief.", tools=("read_file", "submit")
)


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def says(bench: Bench, reply: AssistantMessage) -> None:
    """The model's reply to the newest question."""
    command = bench.mailbox.commands[-1].data
    assert isinstance(command, GenerateReply)
    result = ProviderResult(
        effect_id=command.effect_id, run_id=command.run_id, attempt=1, outcome=Outcome.DONE, message=reply
    )
    await bench.agent().handle(bench.message(result, clock.new_uuid()))


async def ran(bench: Bench, output: str, checkpoint: str) -> None:
    """What the newest call of a tool wrote, and left."""
    command = bench.mailbox.commands[-1].data
    assert isinstance(command, ExecuteOperation)
    result = SandboxResult(
        effect_id=command.effect_id,
        run_id=command.run_id,
        attempt=1,
        outcome=Outcome.DONE,
        reason="ok",
        output=output,
        checkpoint=checkpoint,
    )
    await bench.agent().handle(bench.message(result, clock.new_uuid()))


async def recorded(bench: Bench) -> Replays:
    """A run that has looked once, and then looked again; as another takes it over before the second time."""
    await bench.thinking(bench.agent())
    await says(bench, AssistantMessage(text="I look.", tool_calls=(LS,)))
    await ran(bench, "files", CHANGED)
    place = len(await EventLog(bench.database).read_stream(run_stream(bench.run_id)))
    await says(bench, AssistantMessage(text="Again.", tool_calls=(LS,)))
    return Replays(run_id=bench.run_id, until_version=place)


async def going_on(bench: Bench, replays: Replays, tenant_id: str = TENANT) -> Bench:
    """A run that replays, at its first question."""
    other = Bench(bench.database)
    submit = other.submit()
    assert isinstance(submit.data, SubmitRun)
    files = Files(base=DIGEST, checkpoint=CHANGED)
    changes = {"definition": OTHER, "continues": files, "replays": replays}
    agent = other.agent()
    envelope = replace(submit.envelope, tenant_id=tenant_id)
    await agent.handle(Message(envelope, submit.data.model_copy(update=changes)))
    prepare = other.mailbox.commands[-1].data
    assert isinstance(prepare, ExecuteOperation)
    assert isinstance(prepare.operation, PrepareFiles)
    assert prepare.operation.continues == files
    prepared = other.prepared()
    assert isinstance(prepared.data, SandboxResult)
    result = prepared.data.model_copy(update={"checkpoint": CHANGED})
    envelope = replace(prepared.envelope, id=derived_uuid(other.run_id, "prepared"), tenant_id=tenant_id)
    await agent.handle(Message(envelope, result))
    return other


@dataclass
class Models:
    """A real worker, which keeps what it has read from one question to the next. `asked` are its model's requests."""

    bench: Bench
    worker: EffectLoop
    asked: list[ModelRequest]

    @classmethod
    async def of(cls, bench: Bench, folder: Path) -> Models:
        store = LocalArtifactStore(folder)
        await store.start()
        provider = ScriptedProvider(lambda _: "done")
        model = ResilientProvider(provider, Breaker("scripted"))
        log = EventLog(bench.database)
        performer = ProviderPerformer(log, store, lambda _: (model, "m"), unsent, answers_topic="t")
        worker: EffectLoop = bench.provider(cast(Any, performer))
        await worker.start()
        return cls(bench, worker, provider.requests)

    async def answer(self) -> ProviderResult:
        """What comes of the newest command."""
        before = len(self.bench.mailbox.answers)
        await self.worker.handle(self.bench.mailbox.commands[-1])
        await until(lambda: len(self.bench.mailbox.answers) > before)
        answer = self.bench.mailbox.answers[-1].data
        assert isinstance(answer, ProviderResult)
        return answer


async def question(bench: Bench, folder: Path) -> tuple[list[ModelRequest], ProviderResult]:
    """What a worker asks for the newest command, and what came of it."""
    models = await Models.of(bench, folder)
    answer = await models.answer()
    await models.worker.drain(1)
    return models.asked, answer


async def test_the_first_question_has_what_was_said_and_the_instructions_and_tools_of_the_other_version(
    bench: Bench, tmp_path: Path
) -> None:
    other = await going_on(bench, await recorded(bench))
    [request], answer = await question(other, tmp_path)
    system, task, reply, result = request.messages
    assert isinstance(system, SystemMessage)
    assert "Be brief." in system.text
    assert (type(task), task.text) == (UserMessage, "t")
    assert (type(reply), reply.text) == (AssistantMessage, "I look.")
    assert (type(result), result.text) == (ToolMessage, "files")
    assert [tool.name for tool in request.tools] == ["read_file", "submit"]
    assert answer.outcome is Outcome.DONE


async def test_the_next_question_has_what_the_new_run_has_said_after_it(bench: Bench, tmp_path: Path) -> None:
    other = await going_on(bench, await recorded(bench))
    await says(other, AssistantMessage(text="Now I read.", tool_calls=(LS.model_copy(update={"name": "read_file"}),)))
    [request], _ = await question(other, tmp_path)
    assert [message.text for message in request.messages[2:5]] == ["I look.", "files", "Now I read."]


async def test_a_run_that_replays_one_that_replays_has_all_that_was_said(bench: Bench, tmp_path: Path) -> None:
    second = await going_on(bench, await recorded(bench))
    await says(second, AssistantMessage(text="Now I read.", tool_calls=(LS.model_copy(update={"name": "nothing"}),)))
    place = len(await EventLog(bench.database).read_stream(run_stream(second.run_id)))
    third = await going_on(second, Replays(run_id=second.run_id, until_version=place, runs=2))
    [request], _ = await question(third, tmp_path)
    said = [message.text for message in request.messages if isinstance(message, AssistantMessage)]
    assert said == ["I look.", "Now I read."]


async def test_a_command_that_replays_a_run_of_another_tenant_is_told_nothing_of_it(
    bench: Bench, tmp_path: Path
) -> None:
    other = await going_on(bench, await recorded(bench), tenant_id="ten_other")
    requests, answer = await question(other, tmp_path)
    assert (requests, answer.outcome, answer.error_reason) == ([], Outcome.FAILED, "not_found")


async def emptied(bench: Bench, run_id: str) -> None:
    """As erasure and retention leave a run."""
    await bench.database.write("UPDATE events SET sealed = NULL WHERE metadata ->> 'runid' = $1", run_id)


@pytest.mark.parametrize("has_asked", [False, True], ids=["at the first question", "at a later one"])
async def test_what_was_erased_is_not_told_as_if_it_had_been_said(
    bench: Bench, tmp_path: Path, *, has_asked: bool
) -> None:
    """Nor is it told from the memory of a worker that has asked before."""
    other = await going_on(bench, await recorded(bench))
    models = await Models.of(other, tmp_path)
    if has_asked:
        assert (await models.answer()).outcome is Outcome.DONE
        read = AssistantMessage(text="I read.", tool_calls=(LS.model_copy(update={"name": "nothing"}),))
        await says(other, read)
    asked = len(models.asked)
    await emptied(bench, bench.run_id)
    answer = await models.answer()
    await models.worker.drain(1)
    assert (answer.outcome, answer.error_reason, answer.attempt) == (Outcome.FAILED, "erased", 1)
    assert len(models.asked) == asked
    await other.agent().handle(answered(other.mailbox.answers[-1]))
    last = (await EventLog(other.database).read_stream(run_stream(other.run_id)))[-1].decode()
    assert isinstance(last, StepStarted)
    assert last.ending is not None
    assert (last.name, last.ending.reason) == ("collect", "erased")


async def test_what_was_erased_is_not_told_by_way_of_a_run_between(bench: Bench, tmp_path: Path) -> None:
    second = await going_on(bench, await recorded(bench))
    place = len(await EventLog(bench.database).read_stream(run_stream(second.run_id)))
    third = await going_on(second, Replays(run_id=second.run_id, until_version=place, runs=2))
    await emptied(bench, bench.run_id)
    requests, answer = await question(third, tmp_path)
    assert (requests, answer.outcome, answer.error_reason) == ([], Outcome.FAILED, "erased")
