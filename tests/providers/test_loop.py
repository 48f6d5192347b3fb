"""What vendors do wrong, through the whole step loop: the run goes on, or ends with a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from codeagent.artifacts.store import LocalArtifactStore
from codeagent.messages import events
from codeagent.messages.values import RunStatus
from tests.providers.loop import Loop
from tests.servers.model_server import ModelServer
from tests.servers.providers import ADAPTERS, over_http, warm_up
from tests.servers.script import Call, Fault, Reply

DONE = Reply(calls=(Call("submit", '{"summary":"Done."}', "z"),))


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        asyncio.run(warm_up(running))
        yield running


@pytest.fixture(params=ADAPTERS)
async def loop(request: pytest.FixtureRequest, server: ModelServer, tmp_path: Path) -> AsyncIterator[Loop]:
    store = LocalArtifactStore(tmp_path)
    await store.start()
    provider = over_http(request.param, server)
    server.received.clear()
    yield Loop(provider, store)
    await provider.close()


def failed_calls(loop: Loop) -> list[str]:
    return [event.code for event in loop.scenario.events if isinstance(event, events.ToolCallFailed)]


def is_collecting(loop: Loop) -> bool:
    return loop.scenario.state.ending is not None and loop.scenario.state.ending.status is RunStatus.COMPLETED


async def test_a_model_is_told_what_was_wrong_with_its_calls_and_goes_on(loop: Loop, server: ModelServer) -> None:
    wrong = (Call("format_disk", "{}", "a"), Call("shell", '{"comand":"ls"}', "b"))
    server.script.load(Reply(text="Looking.", calls=wrong), DONE)

    await loop.think()
    assert failed_calls(loop) == ["unsupported_tool", "invalid_arguments"]
    await loop.think()

    assert is_collecting(loop)
    said = json.dumps(server.received[-1].body)
    assert "There is no tool" in said
    assert "do not fit shell" in said


async def test_arguments_that_are_no_json_are_told_and_the_run_goes_on(
    loop: Loop, server: ModelServer, request: pytest.FixtureRequest
) -> None:
    if "google" in request.node.callspec.id:
        pytest.skip("the vendor has no text of arguments: it sends an object")
    server.script.load(Reply(calls=(Call("shell", '{"command": oops', "a"),)), DONE)

    await loop.think()
    assert failed_calls(loop) == ["malformed_arguments"]
    await loop.think()

    assert is_collecting(loop)


async def test_calls_with_one_id_are_carried_out_one_by_one(loop: Loop, server: ModelServer) -> None:
    twice = (Call("shell", '{"command":"one"}', "x"), Call("shell", '{"command":"two"}', "x"))
    server.script.load(Reply(calls=twice), DONE)

    await loop.think()
    for output in ("first", "second"):
        loop.scenario.sandbox(output=output, reason="exit", exit_code=0)
    await loop.think()

    assert is_collecting(loop)
    said = json.dumps(server.received[-1].body)
    assert said.index("one") < said.index("first") < said.index("second")


async def test_five_megabytes_of_arguments_travel_as_an_artifact_and_do_not_come_back(
    loop: Loop, server: ModelServer
) -> None:
    huge = json.dumps({"path": "a", "content": "x" * 5_000_000})
    server.script.load(Reply(text="Writing.", calls=(Call("write_file", huge, "a"),)), DONE)

    result = await loop.think()

    assert result.message is not None
    call = result.message.tool_calls[0]
    assert (call.arguments, len(result.model_dump_json()) < 10_000) == ("", True)
    assert call.arguments_ref is not None
    kept = json.loads(await loop.store.read("ten_a", call.arguments_ref))
    assert kept == json.loads(huge)

    loop.scenario.sandbox(output="written", reason="ok")
    await loop.think()
    assert is_collecting(loop)
    said = json.dumps(server.received[-1].body)
    assert len(said) < 50_000
    assert "the arguments were too long to be kept" in said


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("malformed"), "bad_response"),
        (Fault("cut_mid"), "connection"),
        (Fault("status", 400, "context_length_exceeded"), "context_overflow"),
    ],
    ids=["malformed", "cut", "overflow"],
)
async def test_a_call_that_fails_for_good_ends_the_run_with_its_reason(
    loop: Loop, server: ModelServer, fault: Fault, reason: str
) -> None:
    server.script.load(Reply(text="Half of this is lost.", fault=fault))

    result = await loop.think()

    assert result.error_reason == reason
    assert loop.scenario.state.ending is not None
    assert (loop.scenario.state.ending.status, loop.scenario.state.ending.reason) == (
        RunStatus.FAILED,
        "provider_error",
    )
    assert len(server.received) == (1 if reason == "context_overflow" else 3)


async def test_a_call_that_fails_once_is_made_again_and_nothing_is_said_twice(loop: Loop, server: ModelServer) -> None:
    server.script.load(Reply(text="Half of it.", fault=Fault("cut_mid")), Reply(text="All of it.", calls=DONE.calls))
    await loop.think()
    said = [event.text for event in loop.scenario.events if isinstance(event, events.MessageCompleted)]
    assert said == ["All of it."]
    assert is_collecting(loop)
