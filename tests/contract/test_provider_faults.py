"""Vendors at their worst: every fault of every adapter becomes one reason, or an answer that a run goes on with."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from codeagent.messages.conversation import AssistantMessage, ToolCall, ToolMessage, UserMessage
from codeagent.providers.pricing import Pricing
from codeagent.providers.protocol import ProviderError
from codeagent.providers.vendor import Timeouts, VendorProvider
from tests.contract.conftest import Told
from tests.servers.providers import FAULTS, KEY, OTHERWISE, TIMEOUTS, Subject, ask, connected, failure, ignore
from tests.servers.script import SECRET_TEXT, Call, Fault, Reply

PROMPT = "my private prompt"


def words_of(error: BaseException | None) -> str:
    """Of an error and of everything that hangs on it."""
    told = ""
    while error is not None:
        told += f"{error!s} {error!r} {getattr(error, 'detail', '')}\n"
        error = error.__cause__ or error.__context__
    return told


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_has_one_reason_is_never_repeated_and_tells_no_secret(
    subject: Subject, told: Told, name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    fault, reason, retryable = FAULTS[name]
    subject.answers(Reply(text="Half of this is lost on the way.", fault=fault))
    asked = subject.hasty() if reason == "timeout" else subject
    seconds = 2.0 if reason == "timeout" else 60.0

    with caplog.at_level(logging.DEBUG):
        error = await failure(asked, ask(UserMessage(text=PROMPT), timeout_seconds=seconds))

    assert (error.reason, error.retryable) == (OTHERWISE.get((name, subject.adapter), reason), retryable)
    assert subject.asked() == 1
    assert error.code == "provider_error"
    if fault.kind == "status" and subject.adapter != "scripted":
        assert f"HTTP {fault.status}" in error.detail
    heard = words_of(error) + caplog.text + "".join(capfd.readouterr())
    assert [secret for secret in (PROMPT, KEY, SECRET_TEXT, "host-17", "alice", "Half of") if secret in heard] == []
    told(name, error.reason)
    await asked.provider.close()


async def test_nobody_listens(subject: Subject, told: Told) -> None:
    if subject.adapter == "scripted":
        pytest.skip("it has no address")
    provider = VendorProvider("acme", connected(subject.adapter, 9, lambda: KEY, TIMEOUTS), Pricing("openai"), TIMEOUTS)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(ask(), ignore)
    assert (caught.value.reason, caught.value.retryable) == ("connection", True)
    told("connection refused", caught.value.reason)
    await provider.close()


async def test_nobody_takes_the_connection(subject: Subject, told: Told) -> None:
    if subject.adapter == "scripted":
        pytest.skip("it has no address")
    limits = Timeouts(connect_seconds=0.2, first_token_seconds=60.0)
    with full_listener() as port:
        connection = connected(subject.adapter, port, lambda: KEY, limits)
        provider = VendorProvider("acme", connection, Pricing("openai"), limits)
        with pytest.raises(ProviderError) as caught:
            await provider.generate(ask(), ignore)
        await provider.close()
    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)
    told("connection not taken", caught.value.reason)


@contextmanager
def full_listener() -> Iterator[int]:
    """A port whose queue of connections is full, so that the kernel answers no further one."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_vendors_wish_to_wait_is_passed_on(subject: Subject) -> None:
    for name, seconds in (("rate limit", 7.0), ("unavailable", 1.5)):
        subject.answers(Reply(fault=FAULTS[name][0]))
        assert (await failure(subject)).retry_after_seconds == seconds


async def test_a_slow_first_word_within_its_limit_is_waited_for(subject: Subject, told: Told) -> None:
    subject.answers(Reply(text="At last.", delay_seconds=0.3))
    assert (await subject.provider.generate(ask(), ignore)).message.text == "At last."
    told("slow first word", "answer")


async def test_an_event_that_nobody_knows_is_passed_over(
    subject: Subject, told: Told, recwarn: pytest.WarningsRecorder
) -> None:
    subject.answers(Reply(text="All of this arrives.", fault=Fault("unknown_event")))
    assert (await subject.provider.generate(ask(), ignore)).message.text == "All of this arrives."
    assert [warning for warning in recwarn if issubclass(warning.category, UserWarning)] == []
    told("unknown event", "answer")


async def test_a_tool_that_was_not_offered_is_the_agents_affair(subject: Subject, told: Told) -> None:
    subject.answers(Reply(calls=(Call("format_disk", "{}", "a"),)))
    reply = await subject.provider.generate(ask(), ignore)
    assert [call.name for call in reply.message.tool_calls] == ["format_disk"]
    told("unknown tool", "answer")


async def test_arguments_that_are_no_json_are_the_agents_affair(subject: Subject, told: Told) -> None:
    if subject.adapter == "google":
        pytest.skip("the vendor has no text of arguments: it sends an object")
    subject.answers(Reply(calls=(Call("shell", '{"command": oops', "a"),)))
    reply = await subject.provider.generate(ask(), ignore)
    assert reply.message.tool_calls[0].arguments == '{"command": oops'
    told("invalid arguments", "answer")


async def test_calls_with_one_id_get_one_each(subject: Subject, told: Told) -> None:
    subject.answers(Reply(calls=(Call("shell", '{"command":"a"}', "x"), Call("shell", '{"command":"b"}', "x"))))
    reply = await subject.provider.generate(ask(), ignore)
    assert [json.loads(call.arguments)["command"] for call in reply.message.tool_calls] == ["a", "b"]
    assert len({call.id for call in reply.message.tool_calls}) == 2
    told("duplicate call ids", "answer")


async def test_an_argument_of_five_megabytes_arrives_whole(subject: Subject, told: Told) -> None:
    content = "x" * 5_000_000
    call = Call("write_file", json.dumps({"path": "a", "content": content}), "a")
    subject.answers(Reply(text="Writing.", calls=(call,)))
    reply = await subject.provider.generate(ask(timeout_seconds=60.0), ignore)
    assert json.loads(reply.message.tool_calls[0].arguments)["content"] == content
    told("5 MB argument", "answer")


ODD = (
    "",
    "null",
    "[]",
    '{"a": 1}{"a": 2}',
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": "\\ud800"}',
    f'{{"a": {"9" * 5_000}}}',
    f'{{"a": {"[" * 600}{"]" * 600}}}',
)


async def test_what_a_model_wrote_once_never_makes_the_next_request_fail(subject: Subject) -> None:
    calls = tuple(ToolCall(id=f"c{number}", name="shell", arguments=text) for number, text in enumerate(ODD))
    answers = [ToolMessage(tool_call_id=call.id, name=call.name, text="no", is_error=True) for call in calls]
    subject.answers(Reply(text="I see."))
    reply = await subject.provider.generate(
        ask(UserMessage(text="Fix it."), AssistantMessage(tool_calls=calls), *answers), ignore
    )
    assert reply.message.text == "I see."
