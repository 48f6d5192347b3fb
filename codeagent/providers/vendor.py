"""One adapter for every vendor behind an HTTP API: bounds the call, streams its text, translates its end.

A vendor's own part (client, model class, key) is a `Connection`; see `openai.py`, `anthropic.py` and `google.py`.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import Model, StreamedResponse
from pydantic_ai.settings import ModelSettings

from codeagent.messages.conversation import FinishReason, Usage
from codeagent.providers import failures, history, responses, translation
from codeagent.providers.keyring import Keyring
from codeagent.providers.keys import Key
from codeagent.providers.pricing import Pricing
from codeagent.providers.protocol import CallCanceled, ModelReply, ModelRequest, Price, ProviderError, TextSink
from codeagent.providers.replies import normalised
from codeagent.providers.sink import LossySink
from codeagent.providers.usage import estimate_broken

MAX_REPLY_CHARACTERS = 8_000_000
"""More than any model writes: a server that goes on past it is broken or hostile."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds below that of the whole call. Silence means not one byte, so a vendor's pings count as life."""

    connect_seconds: float = 10.0
    first_token_seconds: float = 180.0
    silence_seconds: float = 120.0


class Connection(Protocol):
    """A vendor's client. `model` may be asked for any name, at any time, from one event loop."""

    settings: Mapping[str, Any]
    keys: Keyring

    def model(self, name: str) -> Model: ...

    async def close(self) -> None: ...


class VendorProvider:
    """A `Provider` over one vendor's API."""

    def __init__(self, name: str, connection: Connection, pricing: Pricing, timeouts: Timeouts) -> None:
        self.name = name
        self._connection = connection
        self._pricing = pricing
        self._timeouts = timeouts
        self._closed = False
        for library in ("openai", "anthropic", "google_genai"):
            # Below this they write prompts, where an environment variable of theirs asks for it.
            logging.getLogger(library).setLevel(logging.WARNING)

    def context_window(self, model: str) -> int:
        return self._pricing.context_window(model)

    def price(self, model: str) -> Price | None:
        return self._pricing.price(model)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._connection.close()

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply:
        if self._closed:
            raise failures.failure("internal", self.name, retryable=False, note="the provider is closed")
        if not request.messages:
            raise failures.failure("invalid_request", self.name, retryable=False, note="no messages")
        call, price = _Call(self.name, self._timeouts, LossySink(on_text)), self.price(request.model)
        failed: ProviderError
        key: Key | None = None
        try:
            with self._connection.keys.lent(request.model) as key:
                async with responses.closed_afterwards():
                    response = await call.run(self._connection, request)
            reply = self._reply(request, response, price, call.first_token_seconds)
            return replace(reply, credential_id=key.credential_id)
        except asyncio.CancelledError:
            used, estimated = call.usage(request)
            if used is not None:
                credential_id = key.credential_id if key else None
                raise CallCanceled(used, price, credential_id, estimated=estimated) from None
            raise
        except Exception as error:
            failed = failures.from_vendor(error, self.name)
            used, estimated = call.usage(request)
            if used is not None:
                failed.spent(used, price, estimated=estimated)
        if key is not None:
            failed.credential_id = key.credential_id
            failed.has_other_key = await self._connection.keys.refused(key, request.model, failed)
            failed.retryable = failed.retryable or failed.has_other_key  # type: ignore[misc]
        # Raised out here, so that no vendor's message, which may quote the prompt, hangs on as its context.
        raise failed

    def _reply(
        self, request: ModelRequest, response: ModelResponse, price: Price | None, first_token_seconds: float | None
    ) -> ModelReply:
        reply = ModelReply(
            message=translation.from_vendor(response),
            usage=translation.usage_of(response.usage) or Usage(),
            finish_reason=translation.finish_reason(response),
            response_model=response.model_name or request.model,
            response_id=response.provider_response_id or "",
            price=None if price is None else price.told,
            first_token_seconds=first_token_seconds,
        )
        reply = normalised(request, reply)
        return replace(reply, cost_usd=None if price is None else price.cost(reply.usage))


class _Call:
    """One request on the wire. Keeps its stream, so that what was spent is known when the call fails."""

    def __init__(self, provider: str, timeouts: Timeouts, on_text: TextSink) -> None:
        self._provider = provider
        self._timeouts = timeouts
        self._on_text = on_text
        self._stream: StreamedResponse | None = None
        self._received = 0
        self.first_token_seconds: float | None = None

    def usage(self, request: ModelRequest) -> tuple[Usage | None, bool]:
        """Of a call that has failed, and whether it is estimated: once something of an answer has come it is paid for,
        and most vendors count at its end alone."""
        counted = translation.usage_of(self._stream.usage) if self._stream else None
        if self.first_token_seconds is None:
            return counted, False
        used = estimate_broken(request, counted, self._received)
        return used, used != counted

    async def run(self, connection: Connection, request: ModelRequest) -> ModelResponse:
        # Of an event that it does not know a library warns with the words of the answer.
        warnings.filterwarnings("ignore", module=r"(pydantic|pydantic_ai|openai|anthropic|google\.genai)\.")
        settings = ModelSettings(max_tokens=request.max_output_tokens)
        settings.update(connection.settings)  # type: ignore[typeddict-item]
        clock = asyncio.get_running_loop().time
        began = clock()
        end = began + request.timeout_seconds
        async with asyncio.timeout(min(request.timeout_seconds, self._timeouts.first_token_seconds)) as limit:
            async with model_request_stream(
                connection.model(request.model),
                translation.to_vendor(history.repair(request.messages)),
                model_settings=settings,
                model_request_parameters=translation.tool_parameters(request.tools),
                instrument=False,
            ) as stream:
                self._stream = stream
                async for event in stream:
                    if self.first_token_seconds is None:
                        self.first_token_seconds = clock() - began
                    limit.reschedule(end)
                    await self._take(event)
                return self._whole(stream.get())

    async def _take(self, event: ModelResponseStreamEvent) -> None:
        text = ""
        if isinstance(event, PartStartEvent):
            part = event.part
            whole_call = part.args_as_json_str() if isinstance(part, ToolCallPart) else ""
            self._received += len(getattr(part, "content", None) or whole_call)
            text = part.content if isinstance(part, TextPart) else ""
        elif isinstance(event, PartDeltaEvent):
            written = getattr(event.delta, "content_delta", None) or getattr(event.delta, "args_delta", None) or ""
            self._received += len(written)
            text = event.delta.content_delta if isinstance(event.delta, TextPartDelta) else ""
        if self._received > MAX_REPLY_CHARACTERS:
            raise failures.failure("bad_response", self._provider, retryable=False, note="the answer does not end")
        await self._on_text(text)

    def _whole(self, response: ModelResponse) -> ModelResponse:
        """An answer without any word on why it stopped was cut off by somebody in between."""
        stopped = (response.provider_details or {}).get("finish_reason")
        if response.finish_reason is None and not stopped:
            raise failures.failure("bad_response", self._provider, retryable=True, note="the answer was cut off")
        if not response.parts and translation.finish_reason(response) is FinishReason.OTHER:
            raise failures.failure("bad_response", self._provider, retryable=True, note="the answer was empty")
        return response
