"""What a model provider promises to the provider worker. One file a vendor implements it.

A provider is asked once for each attempt; retries, breaker, claims and recording are the worker's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Protocol

from codeagent.errors import CodeAgentError
from codeagent.messages.conversation import AssistantMessage, ChatMessage, FinishReason, ToolSpec, Usage
from codeagent.messages.prices import PriceTold


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One model call. `model` is the vendor's own model name, without the provider prefix."""

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_output_tokens: int = 4096
    timeout_seconds: float = 300.0
    """Bound of the whole call; a provider also bounds connect and the silence between two chunks."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """A whole answer. `cost_usd` is None where no price is known, zero where the model is free; `price` names the one
    that it was counted by. `first_token_seconds` is the time to the first piece of it, where it came in pieces.
    `credential_id` names the stored key that it was asked with."""

    message: AssistantMessage
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal | None = None
    finish_reason: FinishReason = FinishReason.STOP
    response_model: str = ""
    response_id: str = ""
    price: PriceTold | None = None
    first_token_seconds: float | None = None
    credential_id: str | None = None


class Price(Protocol):
    """What the tokens of one model cost at one moment, in US dollars. `told` names it in facts."""

    @property
    def told(self) -> PriceTold: ...

    def cost(self, usage: Usage) -> Decimal: ...


TextSink = Callable[[str], Awaitable[None]]
"""Receives text as the model writes it. Lossy by design: nothing decided may depend on it."""


class Provider(Protocol):
    """A vendor, or a model that runs here.

    `generate` returns a whole reply or raises `ProviderError`. It never retries and never swallows cancellation, which
    is a `CallCanceled` where it is known what was spent until then. `close` is idempotent.
    """

    name: str

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply: ...

    def context_window(self, model: str) -> int:
        """Tokens the model can take, input and output together; a cautious default when unknown."""
        ...

    def price(self, model: str) -> Price | None:
        """What a call costs that begins now; None where nobody knows."""
        ...

    async def close(self) -> None: ...


class ProviderError(CodeAgentError):
    """A model call that did not answer. `usage` is what the failed attempt is known to have spent, `cost_usd` what that
    costs, by `price`; None where it is not known."""

    code: ClassVar[str] = "provider_error"
    status: ClassVar[int] = 502

    def __init__(
        self,
        detail: str,
        *,
        reason: str,
        retryable: bool,
        retry_after_seconds: float | None = None,
        usage: Usage | None = None,
        cost_usd: Decimal | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        """Stable: rate_limited, overloaded, timeout, connection, authentication, permission, not_found,
        context_overflow, invalid_request, content_filtered, bad_response, internal, circuit_open, canceled."""
        self.retryable = retryable  # type: ignore[misc]
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage
        self.cost_usd = cost_usd
        self.price: PriceTold | None = None
        self.estimated = False
        """Nobody counted all of `usage`: it is estimated from what was told and what has come."""
        self.credential_id: str | None = None
        """The stored key that was sent; None is that of the settings, or none."""
        self.has_other_key = False
        """The key alone was refused, and the provider can be asked with another one at once."""

    def spent(self, usage: Usage, price: Price | None, *, estimated: bool = False) -> None:
        """Tells what the failed attempt has spent, at the price that was in force when it began."""
        self.usage, self.estimated = usage, estimated
        if price is not None:
            self.cost_usd, self.price = price.cost(usage), price.told


class CallCanceled(asyncio.CancelledError):
    """A cancellation of a call that has spent something already, which `error` tells: what was begun is paid for."""

    def __init__(
        self, usage: Usage, price: Price | None, credential_id: str | None, *, estimated: bool = False
    ) -> None:
        super().__init__()
        self.error = ProviderError("The call was canceled.", reason="canceled", retryable=False)
        self.error.credential_id = credential_id
        self.error.spent(usage, price, estimated=estimated)
