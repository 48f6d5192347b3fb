"""What only a vendor behind HTTP can get wrong: leaks, keys, redirects, connections, and the words of a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from codeagent.messages.conversation import (
    AssistantMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from codeagent.providers.vendor import Timeouts
from tests.servers.model_server import ModelServer
from tests.servers.providers import (
    ADAPTERS,
    OverHttp,
    ask,
    failure,
    ignore,
    over_http,
    warm_up,
)
from tests.servers.script import Fault, FaultKind, Reply


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        asyncio.run(warm_up(running))
        yield running


@pytest.fixture(params=ADAPTERS)
async def vendor(request: pytest.FixtureRequest, server: ModelServer) -> AsyncIterator[OverHttp]:
    provider = over_http(request.param, server)
    yield OverHttp(provider, server)
    await provider.close()


async def test_silence_inside_an_answer_has_a_limit_of_its_own(server: ModelServer) -> None:
    limits = Timeouts(connect_seconds=2.0, first_token_seconds=30.0, silence_seconds=0.3)
    for kind in ADAPTERS:
        provider = over_http(kind, server, timeouts=limits)
        server.script.load(Reply(text="one two three four", fault=Fault("hang_mid")))
        started = asyncio.get_running_loop().time()
        assert (await failure(OverHttp(provider, server))).reason == "timeout"
        assert asyncio.get_running_loop().time() - started < 5.0
        await provider.close()


async def test_a_redirect_is_not_followed(vendor: OverHttp) -> None:
    vendor.answers(Reply(fault=Fault("status", 307, headers=(("Location", vendor.server.openai_url),))))
    error = await failure(vendor)
    assert error.reason in {"bad_response", "internal"}
    assert vendor.asked() == 1


@pytest.mark.parametrize("kind", ["flood", "endless_line", "endless_error"])
async def test_an_answer_without_end_is_cut_off(
    vendor: OverHttp, kind: FaultKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeagent.providers.vendor.MAX_REPLY_CHARACTERS", 2_000)
    monkeypatch.setattr("codeagent.providers.wire.MAX_RESPONSE_BYTES", 2_000_000)
    vendor.answers(Reply(text="word " * 40, fault=Fault(kind)))
    error = await failure(vendor, ask(timeout_seconds=20.0))
    assert (error.reason, error.retryable) == ("bad_response", False)


async def test_a_cancelled_call_closes_its_connection(vendor: OverHttp) -> None:
    vendor.answers(Reply(text="one two three four", fault=Fault("hang_mid")))
    before = vendor.server.disconnects
    heard = asyncio.Event()

    async def listen(_text: str) -> None:
        heard.set()

    task = asyncio.create_task(vendor.provider.generate(ask(), listen))
    await asyncio.wait_for(heard.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        while vendor.server.disconnects == before:
            await asyncio.sleep(0.01)


async def test_spent_tokens_are_known_when_a_stream_breaks(server: ModelServer) -> None:
    provider = over_http("anthropic", server)
    server.script.load(Reply(text="half of it", input_tokens=900, fault=Fault("cut_mid")))
    error = await failure(OverHttp(provider, server))
    assert error.usage is not None
    assert error.usage.input_tokens == 900
    await provider.close()


@pytest.mark.parametrize("kind", ADAPTERS)
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
@pytest.mark.parametrize("kind", ADAPTERS)
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
    for kind in ADAPTERS:
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
    limits = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    assert 321 in (*map(body.get, limits), body.get("generationConfig", {}).get("maxOutputTokens"))
    assert body["stream"] is True


async def test_answers_are_asked_for_as_they_are(vendor: OverHttp) -> None:
    vendor.answers(Reply(text="Hello."))
    await vendor.provider.generate(ask(), ignore)
    assert vendor.server.received[0].headers["accept-encoding"] == "identity"


async def test_gemini_says_of_an_unknown_key_that_the_request_is_wrong(server: ModelServer) -> None:
    provider = over_http("google", server)
    server.script.load(Reply(fault=Fault("status", 400, "API_KEY_INVALID")))
    assert (await failure(OverHttp(provider, server))).reason == "authentication"
    await provider.close()


async def test_anthropic_is_asked_to_keep_the_conversation_in_its_cache(server: ModelServer) -> None:
    provider = over_http("anthropic", server)
    server.script.load(Reply(text="Hello."))
    server.received.clear()
    await provider.generate(ask(), ignore)
    body = server.received[0].body
    assert "cache_control" in str(body["system"])
    assert "cache_control" in str(body["tools"][-1])
    assert "cache_control" in str(body["messages"][-1])
    await provider.close()


async def test_servers_of_ones_own_get_the_older_name_of_the_output_limit(server: ModelServer) -> None:
    provider = over_http("chat", server)
    server.script.load(Reply(text="Hello."))
    server.received.clear()
    await provider.generate(ask(max_output_tokens=77), ignore)
    assert server.received[0].body["max_tokens"] == 77
    assert "max_completion_tokens" not in server.received[0].body
    await provider.close()


async def test_text_that_is_not_utf8_can_be_sent(vendor: OverHttp) -> None:
    vendor.answers(Reply(text="Fine."))
    odd = "bytes \udcff and nul \x00 and emoji 🙂"
    reply = await vendor.provider.generate(
        ask(UserMessage(text=odd), AssistantMessage(text=" "), UserMessage(text="")), ignore
    )
    assert reply.message.text == "Fine."


@pytest.mark.parametrize("kind", ADAPTERS)
async def test_many_calls_at_once_do_not_mix(kind: str, server: ModelServer) -> None:
    provider = over_http(kind, server, timeouts=Timeouts())
    server.script.load(*(Reply(text=f"answer {number} " * 5, chunk_delay_seconds=0.001) for number in range(30)))

    async def one() -> tuple[str, str]:
        heard: list[str] = []

        async def listen(text: str) -> None:
            heard.append(text)

        reply = await provider.generate(ask(), listen)
        return reply.message.text, "".join(heard)

    results = await asyncio.gather(*(one() for _ in range(30)))
    await provider.close()

    assert all(text == heard for text, heard in results)
    assert len({text for text, _ in results}) == 30
