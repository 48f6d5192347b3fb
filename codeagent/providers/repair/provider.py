"""`builtin/repair` as a provider: stateless, offline, free, and driving the same tools as every other model."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import ClassVar

from codeagent.messages.conversation import AssistantMessage, FinishReason, ToolCall
from codeagent.providers import usage
from codeagent.providers.pricing import FREE
from codeagent.providers.protocol import ModelReply, ModelRequest, Price, ProviderError, TextSink
from codeagent.providers.repair import plan, transcript
from codeagent.providers.sink import LossySink

NEEDED_TOOLS = frozenset({"shell", "edit_file", "submit"})
WINDOW_TOKENS = 1_000_000


class RepairProvider:
    """A `Provider` whose only model is `repair`. It decides from the conversation alone."""

    MODELS: ClassVar[tuple[str, ...]] = ("repair",)

    name = "builtin"

    def __init__(self) -> None:
        self._closed = False

    def context_window(self, model: str) -> int:
        return WINDOW_TOKENS

    def price(self, model: str) -> Price | None:
        return FREE

    async def close(self) -> None:
        self._closed = True

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply:
        if self._closed:
            raise self._refusal("internal", "is closed")
        if request.model not in self.MODELS:
            raise self._refusal("not_found", "does not know the model")
        if not request.messages:
            raise self._refusal("invalid_request", "was given no messages")
        missing = NEEDED_TOOLS - {tool.name for tool in request.tools}
        if missing:
            text = f"builtin/repair cannot work without these tools: {', '.join(sorted(missing))}."
            return await self._reply(request, plan.Move("end", text), on_text)
        return await self._reply(request, plan.next_move(transcript.read(request.messages)), on_text)

    async def _reply(self, request: ModelRequest, move: plan.Move, on_text: TextSink) -> ModelReply:
        await LossySink(on_text)(move.text)
        calls = tuple(
            ToolCall(
                id=transcript.call_id(len(request.messages), move.phase, number),
                name=call.tool,
                arguments=json.dumps(call.arguments),
            )
            for number, call in enumerate(move.calls)
        )
        message = AssistantMessage(text=move.text, tool_calls=calls)
        return ModelReply(
            message=message,
            usage=usage.estimate(request, message),
            cost_usd=Decimal(0),
            price=FREE.told,
            finish_reason=FinishReason.TOOL_CALLS if calls else FinishReason.STOP,
            response_model="builtin/repair",
            response_id=transcript.call_id(len(request.messages), move.phase),
        )

    def _refusal(self, reason: str, sentence: str) -> ProviderError:
        return ProviderError(f"The model provider {self.name!r} {sentence}.", reason=reason, retryable=False)
