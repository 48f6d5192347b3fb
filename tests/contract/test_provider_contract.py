"""What every provider promises, asked of each real adapter over real HTTP and of the scripted twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from codeagent.messages.conversation import (
    AssistantMessage,
    ChatMessage,
    FinishReason,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from codeagent.providers.anthropic import AnthropicConnection
from codeagent.providers.openai import OpenAIConnection
from codeagent.providers.pricing import Pricing, TokenPrices
from codeagent.providers.protocol import ModelReply, ModelRequest, Provider, ProviderError
from codeagent.providers.scripted import After, Answer, ScriptedProvider
from codeagent.providers.vendor import Timeouts, VendorProvider
from tests.servers.model_server import ModelServer
from tests.servers.script import SECRET_TEXT, Call, Fault, Reply

KEY = "sk-very-secret-key-000"
PRICES = {"model-x": TokenPrices(input_usd=Decimal(10), output_usd=Decimal(20), cache_read_usd=Decimal(1))}
TIMEOUTS = Timeouts(connect_seconds=2.0, first_token_seconds=0.4, silence_seconds=0.4)
SHELL = ToolSpec(
    name="shell",
    description="Runs a command.",
    parameters={"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
)

# What each fault must become: reason, and whether asking again can help.
FAULTS: dict[str, tuple[Fault, str, bool]] = {
    "bad request": (Fault("status", 400), "invalid_request", False),
    "unknown key": (Fault("status", 401), "authentication", False),
    "forbidden": (Fault("status", 403), "permission", False),
    "unknown model": (Fault("status", 404), "not_found", False),
    "request timeout": (Fault("status", 408), "timeout", True),
    "too large": (Fault("status", 413), "context_overflow", False),
    "too long": (Fault("status", 400, "context_length_exceeded"), "context_overflow", False),
    "rate limit": (Fault("status", 429, headers=(("Retry-After", "7"),)), "rate_limited", True),
    "server error": (Fault("status", 500), "internal", True),
    "bad gateway": (Fault("status", 502), "internal", True),
    "unavailable": (Fault("status", 503, headers=(("retry-after-ms", "1500"),)), "overloaded", True),
    "overloaded": (Fault("status", 529), "overloaded", True),
    "no first byte": (Fault("hang_before"), "timeout", True),
    "no first event": (Fault("hang_after_headers"), "timeout", True),
    "only keep-alives": (Fault("keepalive"), "timeout", True),
    "silence inside": (Fault("hang_mid"), "timeout", True),
    "cut inside": (Fault("cut_mid"), "connection", True),
    "ends too early": (Fault("end_early"), "bad_response", True),
    "malformed event": (Fault("malformed"), "bad_response", True),
    "error document": (Fault("error_body", 500), "bad_response", True),
    "error event": (Fault("error_event", 500), "internal", True),
    "web page": (Fault("html"), "bad_response", True),
}


class Subject:
    """A provider under test and the means to say what its model answers."""

    provider: Provider

    def answers(self, *replies: Reply) -> None:
        raise NotImplementedError

    def asked(self) -> int:
        raise NotImplementedError


@dataclass
class OverHttp(Subject):
    provider: VendorProvider
    server: ModelServer

    def answers(self, *replies: Reply) -> None:
        self.server.received.clear()
        self.server.script.load(*replies)

    def asked(self) -> int:
        return len(self.server.received)


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


async def warm_up(server: ModelServer) -> None:
    """The SDKs load much of themselves with the first call, which the short limits of these tests do not allow for."""
    for kind in ("openai", "anthropic"):
        provider = over_http(kind, server, timeouts=Timeouts())
        await provider.generate(ask(timeout_seconds=60.0), ignore)
        await provider.close()


@pytest.fixture(params=["openai", "anthropic", "scripted"])
async def subject(request: pytest.FixtureRequest, server: ModelServer) -> AsyncIterator[Subject]:
    if request.param == "scripted":
        yield Twin()
        return
    provider = over_http(request.param, server)
    yield OverHttp(provider, server)
    await provider.close()


@pytest.fixture(params=["openai", "anthropic"])
async def vendor(request: pytest.FixtureRequest, server: ModelServer) -> AsyncIterator[OverHttp]:
    provider = over_http(request.param, server)
    yield OverHttp(provider, server)
    await provider.close()


def over_http(
    kind: str, server: ModelServer, key: Callable[[], str] = lambda: KEY, timeouts: Timeouts = TIMEOUTS
) -> VendorProvider:
    connection: OpenAIConnection | AnthropicConnection
    if kind == "openai":
        connection = OpenAIConnection("acme", key, timeouts, base_url=server.openai_url)
    else:
        connection = AnthropicConnection(key, timeouts, base_url=server.anthropic_url)
    return VendorProvider("acme", connection, Pricing(kind, "http://127.0.0.1", PRICES, 128_000), timeouts)


def ask(*messages: ChatMessage, **options: Any) -> ModelRequest:
    told = messages or (SystemMessage(text="You fix code."), UserMessage(text="Fix it."))
    return ModelRequest(model="model-x", messages=told, tools=(SHELL,), **{"timeout_seconds": 2.0, **options})


async def ignore(_text: str) -> None:
    return None


async def failure(subject: Subject, request: ModelRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await subject.provider.generate(request or ask(), ignore)
    return caught.value


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

    error = await failure(subject)

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


# -- what only a vendor over HTTP can get wrong ----------------------------------------------------------------------


async def test_errors_show_status_and_code_but_no_body_prompt_or_key(vendor: OverHttp) -> None:
    for name, (fault, *_) in FAULTS.items():
        vendor.answers(Reply(text="half", fault=fault))
        error = await failure(vendor, ask(UserMessage(text="my private prompt")))
        chain, link = [], error
        while link is not None:
            chain.append(f"{link!s} {link!r} {getattr(link, 'detail', '')}")
            link = link.__cause__ or link.__context__
        for text in chain:
            for secret in ("host-17", "alice", SECRET_TEXT, "private prompt", KEY):
                assert secret not in text, (name, text)
        if fault.kind == "status" and fault.status >= 400:
            assert f"HTTP {fault.status}" in error.detail


async def test_a_redirect_is_not_followed(vendor: OverHttp) -> None:
    vendor.answers(Reply(fault=Fault("status", 307, headers=(("Location", vendor.server.openai_url),))))
    error = await failure(vendor)
    assert error.reason in {"bad_response", "internal"}
    assert vendor.asked() == 1


async def test_an_answer_without_end_is_cut_off(vendor: OverHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeagent.providers.vendor.MAX_REPLY_CHARACTERS", 2_000)
    vendor.answers(Reply(text="word " * 40, fault=Fault("flood")))
    error = await failure(vendor, ask(timeout_seconds=20.0))
    assert (error.reason, error.retryable) == ("bad_response", False)


async def test_a_dead_address_is_a_connection_error(server: ModelServer) -> None:
    for connection in (
        OpenAIConnection("acme", lambda: KEY, TIMEOUTS, base_url="http://127.0.0.1:9/v1"),
        AnthropicConnection(lambda: KEY, TIMEOUTS, base_url="http://127.0.0.1:9"),
    ):
        provider = VendorProvider("acme", connection, Pricing("openai"), TIMEOUTS)
        with pytest.raises(ProviderError) as caught:
            await provider.generate(ask(), ignore)
        assert (caught.value.reason, caught.value.retryable) == ("connection", True)
        await provider.close()


async def test_a_cancelled_call_closes_its_connection(vendor: OverHttp) -> None:
    vendor.answers(Reply(text="one two three four", fault=Fault("hang_mid")))
    before = vendor.server.disconnects
    task = asyncio.create_task(vendor.provider.generate(ask(), ignore))
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if vendor.server.disconnects > before:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the server still thinks somebody listens")


async def test_spent_tokens_are_known_when_a_stream_breaks(server: ModelServer) -> None:
    provider = over_http("anthropic", server)
    server.script.load(Reply(text="half of it", input_tokens=900, fault=Fault("cut_mid")))
    error = await failure(OverHttp(provider, server))
    assert error.usage is not None
    assert error.usage.input_tokens == 900
    await provider.close()


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_rotated_key_is_used_by_the_next_request_and_makes_a_refusal_worth_another_try(kind: str) -> None:
    keys = ["old-key"]
    with ModelServer(accepted_keys={"old-key", "new-key"}) as server:
        provider = over_http(kind, server, lambda: keys[0])
        await provider.generate(ask(), ignore)
        keys[0] = "new-key"
        await provider.generate(ask(), ignore)
        assert [request.api_key for request in server.received] == ["old-key", "new-key"]

        server.accepted_keys = {"newest-key"}
        refused = await failure(OverHttp(provider, server))
        assert (refused.reason, refused.retryable) == ("authentication", False)

        answers = iter(["new-key", "newest-key"])
        rotating = over_http(kind, server, lambda: next(answers))
        error = await failure(OverHttp(rotating, server))
        assert (error.reason, error.retryable) == ("authentication", True)
        await provider.close()
        await rotating.close()


@pytest.mark.parametrize("bad", ["", "two words", "line\nbreak", "ключ"])
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_key_no_header_can_carry_is_an_authentication_error(kind: str, bad: str, server: ModelServer) -> None:
    provider = over_http(kind, server, lambda: bad)
    server.received.clear()
    error = await failure(OverHttp(provider, server))
    assert error.reason == "authentication"
    assert not server.received
    assert not bad or bad not in str(error)
    await provider.close()


async def test_the_sdks_environment_is_not_ours(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    for kind in ("openai", "anthropic"):
        provider = over_http(kind, server)
        server.script.load(Reply(text="Hello."))
        server.received.clear()
        await provider.generate(ask(), ignore)
        assert "from-the-environment" not in str(server.received[0].headers)
        await provider.close()


async def test_the_conversation_reaches_the_vendor_whole_and_in_order(vendor: OverHttp) -> None:
    vendor.answers(Reply(text="Done."))
    history = (
        SystemMessage(text="You fix code."),
        UserMessage(text="Fix it."),
        AssistantMessage(
            text="Looking.",
            tool_calls=(
                ToolCall(id="a", name="shell", arguments='{"command": "ls"}'),
                ToolCall(id="a", name="shell", arguments="{broken"),
            ),
        ),
        UserMessage(text="Hurry up."),
        ToolMessage(tool_call_id="a", name="shell", text="README.md"),
        ToolMessage(tool_call_id="a", name="shell", text="no such option", is_error=True),
        ToolMessage(tool_call_id="gone", name="shell", text="an answer without a call"),
        AssistantMessage(text="", tool_calls=(ToolCall(id="c", name="rm -rf /", arguments=""),)),
    )

    await vendor.provider.generate(ask(*history, max_output_tokens=321), ignore)

    body = vendor.server.received[0].body
    sent = str(body)
    order = ["Fix it.", "Looking.", "README.md", "no such option", "Hurry up.", "an answer without a call", "rm_-rf"]
    positions = [sent.find(text) for text in order]
    assert -1 not in positions
    assert positions == sorted(positions)
    assert "malformed_arguments" in sent
    assert "No result was recorded" in sent
    assert 321 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert body["stream"] is True


async def test_text_that_is_not_utf8_can_be_sent(vendor: OverHttp) -> None:
    vendor.answers(Reply(text="Fine."))
    odd = "bytes \udcff and nul \x00 and emoji 🙂"
    reply = await vendor.provider.generate(
        ask(UserMessage(text=odd), AssistantMessage(text=" "), UserMessage(text="")), ignore
    )
    assert reply.message.text == "Fine."


async def test_many_calls_at_once_do_not_mix(vendor: OverHttp) -> None:
    vendor.server.script.load(*(Reply(text=f"answer {number} " * 5, chunk_delay_seconds=0.001) for number in range(30)))

    async def one() -> tuple[str, str]:
        heard: list[str] = []

        async def listen(text: str) -> None:
            heard.append(text)

        reply = await vendor.provider.generate(ask(), listen)
        return reply.message.text, "".join(heard)

    results = await asyncio.gather(*(one() for _ in range(30)))

    assert all(text == heard for text, heard in results)
    assert len({text for text, _ in results}) == 30
