"""What a broken answer has used is told with its failure, and what that costs: as it was counted, else estimated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from codeagent.messages.conversation import Usage
from codeagent.providers.protocol import CallCanceled, ProviderError
from codeagent.providers.usage import estimate_input
from tests.servers.model_server import ModelServer
from tests.servers.providers import ADAPTERS, HASTY, OverHttp, ask, failure, over_http, warm_up
from tests.servers.script import Fault, FaultKind, Reply

TEXT = "It is as follows, and goes on. " * 20
WRITTEN = 3
"""Tokens of "It is as f", which is what comes of the answer before it breaks."""
COUNTED_AT_ONCE = {"anthropic": 11, "google": 11}
"""Tokens of input that these vendors tell with the first event."""


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        asyncio.run(warm_up(running))
        yield running


@pytest.mark.parametrize("kind", ["end_early", "malformed", "error_event", "hang_mid"])
async def test_an_answer_that_breaks_off_has_used_what_its_beginning_says(server: ModelServer, kind: FaultKind) -> None:
    provider = over_http("anthropic", server, timeouts=HASTY)
    subject = OverHttp(provider, server)
    subject.answers(Reply(text="It is as follows.", input_tokens=1_000, fault=Fault(kind)))
    error = await failure(subject)
    assert error.usage == Usage(input_tokens=1_000, output_tokens=WRITTEN)
    assert error.cost_usd == (1_000 * Decimal(10) + WRITTEN * Decimal(20)) / 1_000_000
    await provider.close()


async def test_a_call_that_is_canceled_has_used_what_the_beginning_of_its_answer_says(server: ModelServer) -> None:
    provider = over_http("anthropic", server)
    OverHttp(provider, server).answers(Reply(text="It is as follows.", input_tokens=1_000, fault=Fault("hang_mid")))
    began = asyncio.Event()

    async def listen(_text: str) -> None:
        began.set()

    call = asyncio.create_task(provider.generate(ask(), listen))
    await asyncio.wait_for(began.wait(), 30)
    call.cancel()
    with pytest.raises(CallCanceled) as canceled:
        await call
    assert canceled.value.error.usage == Usage(input_tokens=1_000, output_tokens=WRITTEN)
    assert canceled.value.error.cost_usd == (1_000 * Decimal(10) + WRITTEN * Decimal(20)) / 1_000_000
    await provider.close()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("kind", ["end_early", "malformed", "error_event", "hang_mid", "cut_mid"])
async def test_whatever_broke_off_is_billed_for_as_much_as_has_come(
    server: ModelServer, adapter: str, kind: FaultKind
) -> None:
    provider = over_http(adapter, server, timeouts=HASTY)
    subject = OverHttp(provider, server)
    subject.answers(Reply(text=TEXT, fault=Fault(kind), report_usage=False))
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    with pytest.raises(ProviderError) as failed:
        await provider.generate(ask(), listen)
    await provider.close()
    error, came = failed.value, len("".join(heard))
    assert came > 100
    assert error.usage is not None
    assert error.usage.output_tokens == -(-came // 4)
    assert error.usage.input_tokens in {estimate_input(ask()), COUNTED_AT_ONCE.get(adapter)}
    assert error.estimated
    assert error.cost_usd == (error.usage.input_tokens * 10 + error.usage.output_tokens * 20) / Decimal(1_000_000)


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_what_is_refused_before_an_answer_has_begun_is_billed_nothing(server: ModelServer, adapter: str) -> None:
    provider = over_http(adapter, server, timeouts=HASTY)
    for fault in (Fault("status", 503), Fault("hang_after_headers")):
        OverHttp(provider, server).answers(Reply(text=TEXT, fault=fault))
        error = await failure(OverHttp(provider, server))
        assert (error.usage, error.cost_usd, error.estimated) == (None, None, False)
    await provider.close()


async def test_no_estimate_is_longer_than_the_reply_that_was_asked_for(server: ModelServer) -> None:
    provider = over_http("chat", server, timeouts=HASTY)
    OverHttp(provider, server).answers(Reply(text=TEXT, fault=Fault("end_early")))
    with pytest.raises(ProviderError) as failed:
        await provider.generate(replace(ask(), max_output_tokens=5), _unheard)
    await provider.close()
    assert failed.value.usage is not None
    assert failed.value.usage.output_tokens == 5


async def _unheard(_text: str) -> None: ...
