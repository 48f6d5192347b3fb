"""What every provider promises, asked of each real adapter over real HTTP and of the scripted twin."""

from __future__ import annotations

import asyncio
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
from codeagent.providers.protocol import ModelRequest
from tests.contract.conftest import Told
from tests.servers.providers import Subject, ask, failure, ignore
from tests.servers.script import Call, Fault, Reply

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
    if subject.adapter == "google":
        pytest.skip("the vendor has no text of arguments: it sends an object")
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


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "unknown"])
async def test_finish_reasons_are_ours(subject: Subject, told: Told, finish: Any) -> None:
    subject.answers(Reply(text="That is", finish=finish))
    reply = await subject.provider.generate(ask(), ignore)
    assert reply.finish_reason == (FinishReason.OTHER if finish == "unknown" else FinishReason(finish))
    if finish == "unknown":
        told("unknown finish reason", "answer")


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


async def test_what_was_written_to_the_cache_is_input_too(subject: Subject) -> None:
    subject.answers(
        Reply(text="Done.", input_tokens=1000, output_tokens=50, cache_read_tokens=300, cache_write_tokens=600)
    )
    written = 0 if subject.adapter == "google" else 600  # it writes its cache unasked, and does not charge for it

    reply = await subject.provider.generate(ask(), ignore)

    assert reply.usage == Usage(input_tokens=1000, output_tokens=50, cache_read_tokens=300, cache_write_tokens=written)


async def test_what_a_model_thinks_is_paid_for_and_not_said(subject: Subject) -> None:
    thought = Reply(
        reasoning="First the tests, then the code.",
        text="Looking.",
        calls=(Call("shell", '{"command":"ls"}', "a"), Call("shell", '{"command":"pwd"}', "b")),
        output_tokens=50,
        reasoning_tokens=40,
    )
    subject.answers(thought)
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    reply = await subject.provider.generate(ask(), listen)

    assert (reply.message.text, "".join(heard)) == ("Looking.", "Looking.")
    assert reply.usage.output_tokens == 50

    # What it thought is not kept. The model server refuses a conversation as its vendor would.
    subject.answers(Reply(text="Done."))
    answers = [ToolMessage(tool_call_id=call.id, name=call.name, text="ok") for call in reply.message.tool_calls]
    then = await subject.provider.generate(ask(UserMessage(text="Fix it."), reply.message, *answers), ignore)
    assert then.message.text == "Done."


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


async def test_the_whole_call_is_bounded(subject: Subject) -> None:
    subject.answers(Reply(text="one two three four five six seven eight", fault=Fault("hang_mid")))
    started = asyncio.get_running_loop().time()

    error = await failure(subject, ask(timeout_seconds=0.2))

    assert error.reason == "timeout"
    assert asyncio.get_running_loop().time() - started < 10


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
