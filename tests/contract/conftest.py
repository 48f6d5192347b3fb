"""The subjects of the providers' contract: each adapter over real HTTP, and the scripted twin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall, Usage
from codeagent.providers.protocol import ModelReply, ModelRequest, ProviderError
from codeagent.providers.scripted import After, Answer, ScriptedProvider
from tests.servers.model_server import ModelServer
from tests.servers.providers import ADAPTERS, FAULTS, OverHttp, Subject, over_http, warm_up
from tests.servers.script import Reply

Told = Callable[[str, str], None]
"""Tells the report of `make test-providers` what a fault became."""


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
    if reply.fault is not None and reply.fault.kind != "unknown_event":
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
        cache_write_tokens=reply.cache_write_tokens,
    )
    plain = reply.input_tokens - reply.cache_read_tokens
    return ModelReply(
        message=AssistantMessage(text=reply.text, tool_calls=calls),
        usage=counted if reply.report_usage else Usage(),
        cost_usd=(plain * Decimal(10) + reply.cache_read_tokens + reply.output_tokens * Decimal(20)) / 1_000_000,
        finish_reason=FinishReason.OTHER if reply.finish_reason == "unknown" else FinishReason(reply.finish_reason),
        response_model="model-x",
        response_id="scripted-0",
    )


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        asyncio.run(warm_up(running))
        yield running


@pytest.fixture(params=[*ADAPTERS, "scripted"])
async def subject(request: pytest.FixtureRequest, server: ModelServer) -> AsyncIterator[Subject]:
    if request.param == "scripted":
        yield Twin()
        return
    provider = over_http(request.param, server)
    yield OverHttp(provider, server, request.param)
    await provider.close()


@pytest.fixture
def told(subject: Subject, record_property: Callable[[str, object], None]) -> Told:
    started = time.perf_counter()

    def tell(fault: str, outcome: str) -> None:
        milliseconds = (time.perf_counter() - started) * 1000
        record_property("fault", {"adapter": subject.adapter, "fault": fault, "outcome": outcome, "ms": milliseconds})

    return tell
