"""OpenAI Chat Completions answers, built with the vendor's own types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import (
    Choice as ChunkChoice,
)
from openai.types.chat.chat_completion_chunk import (
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.chat.chat_completion_message_function_tool_call import (
    ChatCompletionMessageFunctionToolCall,
    Function,
)
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails

from tests.servers.script import SECRET_TEXT, Reply, pieces

PATH = "/v1/chat/completions"
KEEP_ALIVE = ": keep-alive\n\n"
UNKNOWN_EVENT = 'event: mood\ndata: {"object": "mood", "choices": []}\n\n'

_CODES = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", None),
}


def assistant_messages(body: dict[str, Any]) -> int:
    return sum(1 for message in body.get("messages", ()) if message.get("role") == "assistant")


def refusal(body: dict[str, Any]) -> str | None:
    """What the vendor says to a conversation that it does not take."""
    asked = [call["id"] for message in body["messages"] for call in message.get("tool_calls") or ()]
    answered = [message["tool_call_id"] for message in body["messages"] if message["role"] == "tool"]
    return None if asked == answered else "An assistant message with 'tool_calls' must be followed by tool messages"


def error_body(status: int, code: str | None) -> dict[str, Any]:
    kind, usual = _CODES.get(status, ("server_error", None))
    return {"error": {"message": SECRET_TEXT, "type": kind, "param": None, "code": code or usual}}


def error_event(status: int, code: str | None) -> str:
    return f"data: {json.dumps(error_body(status, code))}\n\n"


def whole(reply: Reply, turn: int, model: str) -> dict[str, Any]:
    """The answer to a request without streaming."""
    calls = [
        ChatCompletionMessageFunctionToolCall(
            id=call.id, type="function", function=Function(name=call.name, arguments=call.arguments)
        )
        for call in reply.calls
    ]
    message = ChatCompletionMessage(role="assistant", content=reply.text or None, tool_calls=calls or None)
    completion = ChatCompletion(
        id=f"chatcmpl-{turn}",
        choices=[Choice(finish_reason=reply.finish_reason, index=0, message=message, logprobs=None)],
        created=1_760_000_000,
        model=model,
        object="chat.completion",
        usage=_usage(reply) if reply.report_usage else None,
    )
    return completion.model_dump(exclude_none=True)


def events(reply: Reply, turn: int, model: str, body: dict[str, Any]) -> Iterator[str]:
    """The answer as server-sent events."""

    def chunk(delta: ChoiceDelta, finish: str | None = None) -> str:
        # Not checked: an unknown reason is one that the SDK's types do not have.
        return _event(model, turn, [ChunkChoice.construct(delta=delta, index=0, finish_reason=finish)])

    yield chunk(ChoiceDelta(role="assistant", content=""))
    for part in pieces(reply.reasoning):
        yield chunk(ChoiceDelta.model_validate({"reasoning_content": part}))
    for part in pieces(reply.text):
        yield chunk(ChoiceDelta(content=part))
    for index, call in enumerate(reply.calls):
        head = ChoiceDeltaToolCall(
            index=index,
            id=call.id or None,
            type="function",
            function=ChoiceDeltaToolCallFunction(name=call.name, arguments=""),
        )
        yield chunk(ChoiceDelta(tool_calls=[head]))
        for part in pieces(call.arguments):
            tail = ChoiceDeltaToolCall(index=index, function=ChoiceDeltaToolCallFunction(arguments=part))
            yield chunk(ChoiceDelta(tool_calls=[tail]))
    yield chunk(ChoiceDelta(), "tired" if reply.finish_reason == "unknown" else reply.finish_reason)
    if reply.report_usage and (body.get("stream_options") or {}).get("include_usage"):
        yield _event(model, turn, [], _usage(reply))
    yield "data: [DONE]\n\n"


def _event(model: str, turn: int, choices: list[ChunkChoice], usage: CompletionUsage | None = None) -> str:
    chunk = ChatCompletionChunk(
        id=f"chatcmpl-{turn}",
        choices=choices,
        created=1_760_000_000,
        model=model,
        object="chat.completion.chunk",
        usage=usage,
    )
    return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"


def _usage(reply: Reply) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=reply.input_tokens,
        completion_tokens=reply.output_tokens,
        total_tokens=reply.input_tokens + reply.output_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=reply.cache_read_tokens, cache_write_tokens=reply.cache_write_tokens
        ),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=reply.reasoning_tokens),
    )
