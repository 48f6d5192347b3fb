"""A run that calls a tool of a real MCP server: from the decision to the log, and when workers die in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from codeagent import clock
from codeagent.artifacts.store import LocalArtifactStore
from codeagent.broker.topics import PROVIDER_EVENTS
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import EffectsLedger
from codeagent.eventlog.log import EventLog
from codeagent.messages import commands, events, results
from codeagent.messages.conversation import AssistantMessage, ToolCall
from codeagent.messages.envelope import Message
from codeagent.messages.ids import mcp_stream, run_stream
from codeagent.messages.mcp import McpTools, digest_of
from codeagent.messages.mcp_calls import CallMcpTool, McpCallEnded, McpResult
from codeagent.messages.values import AgentDefinition, Outcome
from codeagent.workers.effect import EffectLoop, EffectPolicy
from codeagent.workers.mcp import MARK, MOST_ARGUMENT_BYTES, McpPerformer
from codeagent.workers.step import StepLoop
from tests.integration.mcp.host import Host, serving
from tests.integration.workers.system import DIGEST, TENANT, Bench, answered

MARKED = MARK.format(server="docs")


@pytest.fixture
async def bench(newest_database_url: str) -> AsyncIterator[Bench]:
    database = Database(newest_database_url, connections=10)
    yield Bench(database)
    await database.close()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with serving(Host()) as host:
        yield host


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


def worker(
    bench: Bench, host: Host, store: LocalArtifactStore, *, lease: float = 30.0, tenants: tuple[str, ...] | None = None
) -> EffectLoop:
    ledger = EffectsLedger(
        bench.database,
        kind="mcp",
        owner=str(clock.new_uuid()),
        lease=timedelta(seconds=lease),
        durable_claims=True,
        new_token=clock.new_uuid,
    )
    performer = McpPerformer(host.client(tenants=tenants), store, answers_topic=PROVIDER_EVENTS)
    policy = EffectPolicy(slots=2, lease_seconds=lease, sweep_seconds=0.05)
    return EffectLoop(bench.database, ledger, performer, bench.mailbox, policy)


async def asked(bench: Bench, host: Host, agent: StepLoop, *, read_only: bool = False, **arguments: Any) -> Message:
    """Brings a run to a call of the server's tool; returns the call's command."""
    tool = (await host.tool("note")).model_copy(update={"read_only": read_only})
    offer = McpTools(server="docs", digest=digest_of([tool]), tools=(tool,))
    definition = AgentDefinition(id="agt_x", digest=DIGEST, instructions="", tools=("submit",), mcp=(offer,))
    submit = bench.submit()
    assert isinstance(submit.data, commands.SubmitRun)
    await agent.handle(Message(submit.envelope, submit.data.model_copy(update={"definition": definition})))
    await agent.handle(bench.prepared())
    thinking = bench.mailbox.commands[-1].data
    assert isinstance(thinking, commands.GenerateReply)
    call = ToolCall(id="c1", name="mcp__docs__note", arguments=json.dumps(arguments))
    reply = results.ProviderResult(
        effect_id=thinking.effect_id,
        run_id=bench.run_id,
        attempt=1,
        outcome=Outcome.DONE,
        message=AssistantMessage(tool_calls=(call,)),
    )
    await agent.handle(bench.message(reply, clock.new_uuid()))
    assert isinstance(bench.mailbox.commands[-1].data, CallMcpTool)
    return bench.mailbox.commands[-1]


async def result(bench: Bench) -> McpResult:
    async with asyncio.timeout(20):
        while not bench.mailbox.answers:
            await asyncio.sleep(0.01)
    found = bench.mailbox.answers[-1].data
    assert isinstance(found, McpResult)
    return found


async def fact(bench: Bench, effect_id: UUID) -> McpCallEnded:
    [stored] = await EventLog(bench.database).read_stream(mcp_stream(effect_id))
    found = stored.decode()
    assert isinstance(found, McpCallEnded)
    return found


async def test_a_call_goes_to_the_server_and_back_and_stands_in_the_log(
    bench: Bench, host: Host, store: LocalArtifactStore
) -> None:
    agent, loop = bench.agent(), worker(bench, host, store)
    command = await asked(bench, host, agent, text="x")
    await loop.handle(command)
    came = await result(bench)
    assert (came.outcome, came.output) == (Outcome.DONE, f"{MARKED}\nnoted x")
    await agent.handle(answered(bench.mailbox.answers[-1]))
    assert (await bench.names())[-2:] == ["tool.call.completed", "run.step.started"]
    told = await fact(bench, command.envelope.id)
    started = [stored.decode() for stored in await EventLog(bench.database).read_stream(run_stream(bench.run_id))][-3]
    assert isinstance(started, events.ToolCallStarted)
    assert (told.server, told.tool, told.outcome) == ("docs", "note", Outcome.DONE)
    assert told.arguments_digest == started.arguments_digest
    assert (told.result_bytes, told.protocol_version) == (len("noted x"), "2026-07-28")
    await loop.drain(1)


@pytest.mark.parametrize(("tenants", "called"), [((TENANT,), ["x"]), (("ten_other",), [])])
async def test_a_server_is_called_for_those_alone_whose_it_is(
    bench: Bench, host: Host, store: LocalArtifactStore, tenants: tuple[str, ...], called: list[str]
) -> None:
    loop = worker(bench, host, store, tenants=tenants)
    await loop.handle(await asked(bench, host, bench.agent(), text="x"))
    came = await result(bench)
    await loop.drain(1)
    assert host.called == called
    assert (came.error_reason == "mcp_server_unknown") is (not called)


async def test_a_long_answer_is_shortened_for_the_model_and_kept_whole(
    bench: Bench, host: Host, store: LocalArtifactStore
) -> None:
    loop = worker(bench, host, store)
    await loop.handle(await asked(bench, host, bench.agent(), text="long"))
    came = await result(bench)
    assert len(came.output) < 17_000
    assert came.output_ref is not None
    assert await store.read(TENANT, came.output_ref) == b"long" * 10_000
    await loop.drain(1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (b"{", "malformed_arguments"),
        (b"[1]", "invalid_arguments"),
        (b" " * MOST_ARGUMENT_BYTES + b"{}", "mcp_arguments_too_large"),
    ],
)
async def test_arguments_that_were_too_long_to_travel_are_looked_at_before_anything_is_sent(
    bench: Bench, host: Host, store: LocalArtifactStore, arguments: bytes, code: str
) -> None:
    loop = worker(bench, host, store)
    command = await asked(bench, host, bench.agent(), text="x")
    assert isinstance(command.data, CallMcpTool)
    kept = await store.put(TENANT, arguments)
    call = command.data.call.model_copy(update={"arguments": "", "arguments_ref": kept})
    await loop.handle(Message(command.envelope, command.data.model_copy(update={"call": call})))
    assert (await result(bench)).error_reason == code
    assert host.called == []
    await loop.drain(1)


async def test_tools_that_have_changed_are_not_called_and_the_log_says_what_there_was(
    bench: Bench, host: Host, store: LocalArtifactStore
) -> None:
    loop = worker(bench, host, store)
    command = await asked(bench, host, bench.agent(), text="x")
    assert isinstance(command.data, CallMcpTool)
    pin = command.data.pin.model_copy(update={"digest": DIGEST})
    await loop.handle(Message(command.envelope, command.data.model_copy(update={"pin": pin})))
    assert (await result(bench)).error_reason == "mcp_tools_changed"
    told = await fact(bench, command.envelope.id)
    assert (told.tools_digest, told.offered_digest) == (DIGEST, command.data.pin.digest)
    assert host.called == []
    await loop.drain(1)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_call_whose_worker_is_gone_is_made_again_only_where_it_changes_nothing(
    bench: Bench, host: Host, store: LocalArtifactStore, *, read_only: bool
) -> None:
    paused, next_one = worker(bench, host, store, lease=0.5), worker(bench, host, store)
    await paused.handle(await asked(bench, host, bench.agent(), read_only=read_only, text="wait"))
    await host.running.wait()
    host.goes_on.set() if read_only else None
    await next_one.start()
    came = await result(bench)
    await next_one.drain(1)
    await paused.drain(0)
    if read_only:
        assert came.outcome is Outcome.DONE
    else:
        assert (came.outcome, came.error_reason) == (Outcome.FAILED, "mcp_outcome_unknown")
        assert host.called == ["wait"]


async def test_a_worker_that_stops_does_not_leave_the_call_for_another_to_make_again(
    bench: Bench, host: Host, store: LocalArtifactStore
) -> None:
    loop = worker(bench, host, store)
    command = await asked(bench, host, bench.agent(), text="wait")
    await loop.handle(command)
    await host.running.wait()
    await loop.drain(0)
    assert (await result(bench)).error_reason == "mcp_outcome_unknown"
    assert (await fact(bench, command.envelope.id)).attempt == 1
    another = worker(bench, host, store)
    await another.handle(command)
    await another.drain(1)
    assert host.called == ["wait"]
