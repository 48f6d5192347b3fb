"""What a broken answer is known to have used is told with its failure, and what that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal

import pytest

from codeagent.messages.conversation import Usage
from codeagent.providers.protocol import CallCanceled
from tests.servers.model_server import ModelServer
from tests.servers.providers import HASTY, OverHttp, ask, failure, over_http, warm_up
from tests.servers.script import Fault, FaultKind, Reply


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
    assert error.usage == Usage(input_tokens=1_000, output_tokens=1)
    assert error.cost_usd == (1_000 * Decimal(10) + 1 * Decimal(20)) / 1_000_000
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
    assert canceled.value.error.usage == Usage(input_tokens=1_000, output_tokens=1)
    assert canceled.value.error.cost_usd == (1_000 * Decimal(10) + 1 * Decimal(20)) / 1_000_000
    await provider.close()


async def test_an_answer_that_says_nothing_of_it_costs_what_nobody_knows(server: ModelServer) -> None:
    provider = over_http("chat", server)
    subject = OverHttp(provider, server)
    subject.answers(Reply(text="It is as follows.", fault=Fault("end_early")))
    error = await failure(subject)
    assert (error.usage, error.cost_usd) == (None, None)
    await provider.close()
