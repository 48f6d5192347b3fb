"""Providers under test: the real adapters against a local model server, and how to ask and judge them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from codeagent.messages.conversation import ChatMessage, SystemMessage, ToolSpec, UserMessage
from codeagent.providers.anthropic import AnthropicConnection
from codeagent.providers.openai import OpenAIConnection
from codeagent.providers.pricing import Pricing, TokenPrices
from codeagent.providers.protocol import ModelRequest, Provider, ProviderError
from codeagent.providers.vendor import Timeouts, VendorProvider
from tests.servers.model_server import ModelServer
from tests.servers.script import Fault, Reply

KEY = "sk-very-secret-key-000"
PRICES = {"model-x": TokenPrices(input_usd=Decimal(10), output_usd=Decimal(20), cache_read_usd=Decimal(1))}
TIMEOUTS = Timeouts(connect_seconds=2.0, first_token_seconds=1.0, silence_seconds=1.0)
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


def over_http(
    kind: str, server: ModelServer, key: Callable[[], str] = lambda: KEY, timeouts: Timeouts = TIMEOUTS
) -> VendorProvider:
    connection: OpenAIConnection | AnthropicConnection
    if kind == "openai":
        connection = OpenAIConnection("acme", key, timeouts, base_url=server.openai_url)
    else:
        connection = AnthropicConnection(key, timeouts, base_url=server.anthropic_url)
    return VendorProvider("acme", connection, Pricing(kind, "http://127.0.0.1", PRICES, 128_000), timeouts)


async def warm_up(server: ModelServer) -> None:
    """The SDKs load much of themselves with the first call, which the short limits of these tests do not allow for."""
    for kind in ("openai", "anthropic"):
        provider = over_http(kind, server, timeouts=Timeouts())
        await provider.generate(ask(timeout_seconds=60.0), ignore)
        await provider.close()


def ask(*messages: ChatMessage, **options: Any) -> ModelRequest:
    told = messages or (SystemMessage(text="You fix code."), UserMessage(text="Fix it."))
    return ModelRequest(model="model-x", messages=told, tools=(SHELL,), **{"timeout_seconds": 15.0, **options})


async def ignore(_text: str) -> None:
    return None


async def failure(subject: Subject, request: ModelRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await subject.provider.generate(request or ask(), ignore)
    return caught.value
