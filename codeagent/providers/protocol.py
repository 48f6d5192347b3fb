"""What a model provider promises to the provider worker. One file a vendor implements it.

A provider is asked once for each attempt; retries, breaker, claims and recording are the worker's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Protocol

from codeagent.errors import CodeAgentError
from codeagent.messages.conversation import AssistantMessage, ChatMessage, FinishReason, ToolSpec, Usage


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
    """A whole answer. `cost_usd` is None where no price is known, zero where the model is free."""

    message: AssistantMessage
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal | None = None
    finish_reason: FinishReason = FinishReason.STOP
    response_model: str = ""
    response_id: str = ""


TextSink = Callable[[str], Awaitable[None]]
"""Receives text as the model writes it. Lossy by design: nothing decided may depend on it."""


class Provider(Protocol):
    """A vendor, or a model that runs here.

    `generate` returns a whole reply or raises `ProviderError`. It never retries and never swallows
    cancellation. `close` is idempotent.
    """

    name: str

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply: ...

    def context_window(self, model: str) -> int:
        """Tokens the model can take, input and output together; a cautious default when unknown."""
        ...

    async def close(self) -> None: ...


class ProviderError(CodeAgentError):
    """A model call that did not answer. `usage` is what the failed attempt is known to have spent."""

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
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        """Stable: rate_limited, overloaded, timeout, connection, authentication, permission, not_found,
        context_overflow, invalid_request, content_filtered, bad_response, internal."""
        self.retryable = retryable  # type: ignore[misc]
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage
