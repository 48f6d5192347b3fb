"""The twin of a vendor: answers from a script, under the same rules as a real one, refusals included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from codeagent.messages.conversation import AssistantMessage, FinishReason
from codeagent.providers import usage
from codeagent.providers.pricing import FREE
from codeagent.providers.protocol import ModelReply, ModelRequest, Price, ProviderError, TextSink
from codeagent.providers.replies import normalised
from codeagent.providers.sink import LossySink


@dataclass(frozen=True, slots=True)
class After:
    """An answer that takes its time; past the request's `timeout_seconds` it becomes a timeout."""

    seconds: float
    answer: ModelReply | AssistantMessage | ProviderError | str


Answer = ModelReply | AssistantMessage | ProviderError | str | After
Script = Sequence[Answer] | Callable[[ModelRequest], Answer]

_WORDS_PER_DELTA = 4


class ScriptedProvider:
    """A `Provider` for tests and benchmarks.

    A sequence is followed by the conversation: a request with k answers of the model in it gets answer k, so that any
    number of conversations can share one script. Errors in it are raised once each and then passed over.
    """

    def __init__(
        self, script: Script, *, name: str = "scripted", context_window: int = 128_000, price: Price | None = FREE
    ) -> None:
        self.name = name
        self.requests: list[ModelRequest] = []
        self._script = script
        self._context_window = context_window
        self._price = price
        self._raised: set[int] = set()
        self._closed = False

    def context_window(self, model: str) -> int:
        return self._context_window

    def price(self, model: str) -> Price | None:
        return self._price

    async def close(self) -> None:
        self._closed = True

    async def generate(self, request: ModelRequest, on_text: TextSink) -> ModelReply:
        if self._closed:
            raise self._refusal("internal", "is closed")
        if not request.messages:
            raise self._refusal("invalid_request", "was given no messages")
        if usage.estimate_input(request) > self._context_window:
            raise self._refusal("context_overflow", "cannot take a conversation this long")
        self.requests.append(request)
        answer = self._next(request)
        try:
            async with asyncio.timeout(request.timeout_seconds):
                if isinstance(answer, After):
                    await asyncio.sleep(answer.seconds)
                    answer = answer.answer
                return await self._give(request, answer, LossySink(on_text))
        except TimeoutError:
            raise self._refusal("timeout", "did not answer in time", retryable=True) from None

    async def _give(
        self, request: ModelRequest, answer: ModelReply | AssistantMessage | ProviderError | str, on_text: TextSink
    ) -> ModelReply:
        if isinstance(answer, ProviderError):
            raise answer
        if isinstance(answer, str):
            answer = AssistantMessage(text=answer)
        if isinstance(answer, AssistantMessage):
            reason = FinishReason.TOOL_CALLS if answer.tool_calls else FinishReason.STOP
            answer = ModelReply(message=answer, cost_usd=Decimal(0), finish_reason=reason, response_model=request.model)
        for piece in _pieces(answer.message.text):
            await on_text(piece)
            await asyncio.sleep(0)
        return normalised(request, answer)

    def _next(self, request: ModelRequest) -> Answer:
        if callable(self._script):
            return self._script(request)
        position = sum(1 for message in request.messages if isinstance(message, AssistantMessage))
        for index, answer in enumerate(self._script):
            is_error = isinstance(answer.answer if isinstance(answer, After) else answer, ProviderError)
            if index in self._raised:
                continue
            if position == 0:
                if is_error:
                    self._raised.add(index)
                return answer
            if not is_error:
                position -= 1
        raise self._refusal("internal", f"was scripted for {len(self._script)} answers and asked for one more")

    def _refusal(self, reason: str, sentence: str, *, retryable: bool = False) -> ProviderError:
        return ProviderError(f"The model provider {self.name!r} {sentence}.", reason=reason, retryable=retryable)


def _pieces(text: str) -> list[str]:
    """`text` in deltas of a few words, nothing lost."""
    words = text.split(" ")
    groups = [words[start : start + _WORDS_PER_DELTA] for start in range(0, len(words), _WORDS_PER_DELTA)]
    return [" ".join(group) + (" " if number < len(groups) - 1 else "") for number, group in enumerate(groups)]
