"""What every provider promises, asked of each real adapter over real HTTP and of the scripted twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from codeagent.messages.conversation import (
    AssistantMessage,
    FinishReason,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError
from codeagent.providers.scripted import After, Answer, ScriptedProvider
from tests.servers.model_server import ModelServer
from tests.servers.providers import FAULTS, OverHttp, Subject, ask, failure, ignore, over_http, warm_up
from tests.servers.script import Call, Fault, Reply


@dataclass
class Twin(Subject):
    provider: ScriptedProvider = field(default_factory=lambda: ScriptedProvider([]))
    _script: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.provider = ScriptedProvider(self._next)

    def answers(self, *replies: Reply) -> None:
        self._script[:] = [_as_answer(reply) for reply in replies]

    def asked(self) -> int:
        return len(self.provider.requests)

    def _next(self, _request: ModelRequest) -> Answer:
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]


def _as_answer(reply: Reply) -> Answer:
    if reply.fault is not None:
        if reply.fault.kind in {"hang_before", "hang_after_headers", "hang_mid", "keepalive"}:
            return After(3600, "")
        _, reason, retryable = next(row for row in FAULTS.values() if row[0] == reply.fault)
        after = {"Retry-After": 1.0, "retry-after-ms": 0.001}
        seconds = [float(value) * after[name] for name, value in reply.fault.headers if name in after]
        return ProviderError("The model provider 'scripted' failed.", reason=reason, retryable=retryable,
                             retry_after_seconds=seconds[0] if seconds else None)  # fmt: skip
    calls = tuple(ToolCall(id=call.id, name=call.name, arguments=call.arguments or "{}") for call in reply.calls)
    counted = Usage(
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cache_read_tokens=reply.cache_read_tokens,
    )
    plain = reply.input_tokens - reply.cache_read_tokens
    return ModelReply(
        message=AssistantMessage(text=reply.text, tool_calls=calls),
        usage=counted if reply.report_usage else Usage(),
        cost_usd=(plain * Decimal(10) + reply.cache_read_tokens + reply.output_tokens * Decimal(20)) / 1_000_000,
        finish_reason=FinishReason(reply.finish_reason),
        response_model="model-x",
        response_id="scripted-0",
    )


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        asyncio.run(warm_up(running))
        yield running


@pytest.fixture(params=["openai", "anthropic", "scripted"])
async def subject(request: pytest.FixtureRequest, server: ModelServer) -> AsyncIterator[Subject]:
    if request.param == "scripted":
        yield Twin()
        return
    provider = over_http(request.param, server)
    yield OverHttp(provider, server)
    await provider.close()


# -- answers ---------------------------------------------------------------------------------------------------------


async def test_text_arrives_in_pieces_that_make_up_the_reply(subject: Subject) -> None:
    subject.answers(Reply(text="I will look at the tests first, then at the code they import.\n"))
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    reply = await subject.provider.generate(ask(), listen)

    assert reply.message == AssistantMessage(text="I will look at the tests first, then at the code they import.\n")
    assert reply.finish_reason is FinishReason.STOP
    assert "".join(heard) == reply.message.text
    assert len(heard) > 1


async def test_tool_calls_keep_the_arguments_as_written(subject: Subject) -> None:
    written = '{"command":  "ls -la é",\n "n": 1}'
    subject.answers(Reply(text="Looking.", calls=(Call("shell", written, "a"), Call("shell", '{"command": oops', "b"))))

    reply = await subject.provider.generate(ask(), ignore)

    assert reply.message.text == "Looking."
    assert [(call.id, call.name, call.arguments) for call in reply.message.tool_calls] == [
        ("a", "shell", written),
        ("b", "shell", '{"command": oops'),
    ]
    assert reply.finish_reason is FinishReason.TOOL_CALLS


async def test_missing_and_repeated_call_ids_are_repaired_the_same_way_every_time(subject: Subject) -> None:
    earlier = AssistantMessage(tool_calls=(ToolCall(id="call_0", name="shell"),))
    told = (UserMessage(text="Fix it."), earlier, ToolMessage(tool_call_id="call_0", name="shell", text="ok"))
    subject.answers(Reply(calls=(Call("shell", "{}", ""), Call("shell", "", "call_0"), Call("shell", "{}", "new"))))

    first = await subject.provider.generate(ask(*told), ignore)
    again = await subject.provider.generate(ask(*told), ignore)

    ids = [call.id for call in first.message.tool_calls]
    assert ids == ["call_3_0", "call_3_1", "new"]
    assert [call.arguments for call in first.message.tool_calls] == ["{}", "{}", "{}"]
    assert again.message == first.message


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
async def test_finish_reasons_are_ours(subject: Subject, finish: Any) -> None:
    subject.answers(Reply(text="That is", finish=finish))
    assert (await subject.provider.generate(ask(), ignore)).finish_reason == FinishReason(finish)


async def test_a_stop_after_tool_calls_is_called_what_it_is(subject: Subject) -> None:
    subject.answers(Reply(calls=(Call("shell"),), finish="stop"))
    assert (await subject.provider.generate(ask(), ignore)).finish_reason is FinishReason.TOOL_CALLS


async def test_usage_counts_the_cache_as_input_and_cost_follows_the_price_list(subject: Subject) -> None:
    subject.answers(Reply(text="Done.", input_tokens=1000, output_tokens=50, cache_read_tokens=800))

    reply = await subject.provider.generate(ask(), ignore)

    assert reply.usage == Usage(input_tokens=1000, output_tokens=50, cache_read_tokens=800)
    assert reply.cost_usd == (200 * Decimal(10) + 800 + 50 * Decimal(20)) / 1_000_000
    assert reply.response_model == "model-x"
    assert reply.response_id


async def test_usage_nobody_counted_is_estimated_so_that_budgets_hold(subject: Subject) -> None:
    subject.answers(Reply(text="x" * 400, report_usage=False))
    told = ask(UserMessage(text="y" * 4000))

    reply = await subject.provider.generate(told, ignore)

    assert 1000 <= reply.usage.input_tokens < 1100
    assert reply.usage.output_tokens == 100


async def test_an_empty_answer_is_an_answer(subject: Subject) -> None:
    subject.answers(Reply(text=""))
    reply = await subject.provider.generate(ask(), ignore)
    assert reply.message == AssistantMessage()
    assert reply.finish_reason is FinishReason.STOP


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_has_one_reason_and_is_never_repeated(subject: Subject, name: str) -> None:
    fault, reason, retryable = FAULTS[name]
    subject.answers(Reply(text="Half of this is lost on the way.", fault=fault))

    error = await failure(subject, ask(timeout_seconds=2.0))

    assert (error.reason, error.retryable) == (reason, retryable)
    assert subject.asked() == 1
    assert error.code == "provider_error"


async def test_a_vendors_wish_to_wait_is_passed_on(subject: Subject) -> None:
    for name, seconds in (("rate limit", 7.0), ("unavailable", 1.5)):
        subject.answers(Reply(fault=FAULTS[name][0]))
        assert (await failure(subject)).retry_after_seconds == seconds


async def test_the_whole_call_is_bounded(subject: Subject) -> None:
    subject.answers(Reply(text="one two three four five six seven eight", fault=Fault("hang_mid")))
    started = asyncio.get_running_loop().time()

    error = await failure(subject, ask(timeout_seconds=0.2))

    assert error.reason == "timeout"
    assert asyncio.get_running_loop().time() - started < 1.5


async def test_no_messages_is_refused_without_a_call(subject: Subject) -> None:
    subject.answers(Reply(text="Hello."))
    error = await failure(subject, ModelRequest(model="model-x", messages=()))
    assert (error.reason, error.retryable) == ("invalid_request", False)
    assert subject.asked() == 0


async def test_cancellation_passes_through_and_stops_the_call(subject: Subject) -> None:
    subject.answers(Reply(text="never", fault=Fault("hang_before")))
    task = asyncio.create_task(subject.provider.generate(ask(), ignore))
    await asyncio.sleep(0.1)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_listener_that_fails_or_hangs_does_not_cost_the_answer(subject: Subject) -> None:
    subject.answers(Reply(text="This was paid for and must not be lost."))

    async def broken(_text: str) -> None:
        raise ConnectionError("the stream of deltas is down")

    reply = await subject.provider.generate(ask(), broken)
    assert reply.message.text == "This was paid for and must not be lost."


async def test_closing_twice_is_fine_and_a_closed_provider_says_so(subject: Subject) -> None:
    subject.answers(Reply(text="Hello."))
    await subject.provider.close()
    await subject.provider.close()
    error = await failure(subject)
    assert (error.reason, error.retryable) == ("internal", False)


async def test_the_context_window_is_known(subject: Subject) -> None:
    assert subject.provider.context_window("model-x") == 128_000
