"""Providers under test: the real adapters against a local model server, and how to ask and judge them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from codeagent.messages.conversation import ChatMessage, SystemMessage, ToolSpec, UserMessage
from codeagent.providers.anthropic import AnthropicConnection
from codeagent.providers.google import GoogleConnection
from codeagent.providers.keyring import Keyring
from codeagent.providers.openai import OpenAIConnection
from codeagent.providers.pricing import Pricing, TokenPrices
from codeagent.providers.protocol import ModelRequest, Provider, ProviderError
from codeagent.providers.vendor import Connection, Timeouts, VendorProvider
from tests.servers.model_server import ModelServer
from tests.servers.script import Fault, Reply

KEY = "sk-very-secret-key-000"
PRICES = {"model-x": (TokenPrices(input_usd=Decimal(10), output_usd=Decimal(20), cache_read_usd=Decimal(1)),)}
TIMEOUTS = Timeouts(connect_seconds=20.0, first_token_seconds=30.0, silence_seconds=30.0)
"""Far above what any answer here takes, also on a machine that is busy with other tests."""
HASTY = Timeouts(connect_seconds=20.0, first_token_seconds=0.5, silence_seconds=0.5)
"""For the faults that are a matter of time."""
SHELL = ToolSpec(
    name="shell",
    description="Runs a command.",
    parameters={"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
)

ADAPTERS = ("chat", "responses", "anthropic", "google")

# What each fault must become: reason, and whether asking again can help.
OTHERWISE = {("error document", "google"): "internal"}
"""What an adapter makes of a fault in another way than the rest: Gemini's error documents carry their status."""

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
    "web page": (Fault("html", 200), "bad_response", True),
    "web page of a proxy": (Fault("html", 502), "internal", True),
    "wrong shape": (Fault("wrong_shape"), "bad_response", True),
    "nothing at all": (Fault("empty"), "bad_response", True),
    "compressed": (Fault("compressed"), "bad_response", True),
}


class Subject:
    """A provider under test and the means to say what its model answers."""

    provider: Provider
    adapter = "scripted"

    def answers(self, *replies: Reply) -> None:
        raise NotImplementedError

    def asked(self) -> int:
        raise NotImplementedError

    def hasty(self) -> Subject:
        """One that soon loses patience."""
        return self


@dataclass
class OverHttp(Subject):
    provider: VendorProvider
    server: ModelServer
    adapter: str = ""

    def answers(self, *replies: Reply) -> None:
        self.server.received.clear()
        self.server.script.load(*replies)

    def asked(self) -> int:
        return len(self.server.received)

    def hasty(self) -> Subject:
        return OverHttp(over_http(self.adapter, self.server, timeouts=HASTY), self.server, self.adapter)


def over_http(
    kind: str, server: ModelServer, key: Callable[[], str] = lambda: KEY, timeouts: Timeouts = TIMEOUTS
) -> VendorProvider:
    connection = connected(kind, server.port, key, timeouts)
    return VendorProvider("acme", connection, Pricing(kind, "http://127.0.0.1", PRICES, 128_000), timeouts)


def connected(adapter: str, port: int, key: Callable[[], str], timeouts: Timeouts) -> Connection:
    """To whatever listens on a port of this machine."""
    url = f"http://127.0.0.1:{port}"
    match adapter:
        case "chat" | "responses":
            return OpenAIConnection("acme", Keyring(key), timeouts, base_url=f"{url}/v1", api=adapter)
        case "anthropic":
            return AnthropicConnection(Keyring(key), timeouts, base_url=url)
        case _:
            return GoogleConnection(Keyring(key), timeouts, base_url=url)


async def warm_up(server: ModelServer) -> None:
    """The SDKs load much of themselves with the first call, which the short limits of these tests do not allow for."""
    for kind in ADAPTERS:
        provider = over_http(kind, server, timeouts=Timeouts())
        await provider.generate(ask(timeout_seconds=60.0), ignore)
        await provider.close()


def ask(*messages: ChatMessage, **options: Any) -> ModelRequest:
    told = messages or (SystemMessage(text="You fix code."), UserMessage(text="Fix it."))
    return ModelRequest(model="model-x", messages=told, tools=(SHELL,), **{"timeout_seconds": 60.0, **options})


async def ignore(_text: str) -> None:
    return None


async def failure(subject: Subject, request: ModelRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await subject.provider.generate(request or ask(), ignore)
    return caught.value
