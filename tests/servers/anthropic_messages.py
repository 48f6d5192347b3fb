"""Anthropic Messages answers, built with the vendor's own types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from anthropic.types import (
    InputJSONDelta,
    Message,
    MessageDeltaUsage,
    RawContentBlockDeltaEvent,
    RawContentBlockStartEvent,
    RawContentBlockStopEvent,
    RawMessageDeltaEvent,
    RawMessageStartEvent,
    RawMessageStopEvent,
    SignatureDelta,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    Usage,
)
from anthropic.types.raw_message_delta_event import Delta
from pydantic import BaseModel

from tests.servers.script import SECRET_TEXT, SIGNATURE, Finish, Reply, pieces

PATH = "/v1/messages"
KEEP_ALIVE = 'event: ping\ndata: {"type": "ping"}\n\n'

UNKNOWN_EVENT = 'event: mood_changed\ndata: {"type": "mood_changed", "mood": "tired"}\n\n'

_STOP: dict[Finish, Any] = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
    "unknown": "tired",
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def assistant_messages(body: dict[str, Any]) -> int:
    return sum(1 for message in body.get("messages", ()) if message.get("role") == "assistant")


def refusal(body: dict[str, Any]) -> str | None:
    """What the vendor says to a conversation that it does not take."""
    blocks = [
        block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]
    ]
    asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
    answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if asked != answered:
        return "`tool_use` ids were found without `tool_result` blocks immediately after"
    if body.get("thinking") and asked and not any(block["type"] == "thinking" for block in blocks):
        return "Expected `thinking`, but found `tool_use`"
    return None


def error_body(status: int, code: str | None) -> dict[str, Any]:
    if code == "context_length_exceeded":
        error = {"type": "invalid_request_error", "message": "prompt is too long: 250000 tokens > 200000 maximum"}
    else:
        error = {"type": code or _TYPES.get(status, "api_error"), "message": SECRET_TEXT}
    return {"type": "error", "error": error}


def error_event(status: int, code: str | None) -> str:
    return f"event: error\ndata: {json.dumps(error_body(status, code))}\n\n"


def whole(reply: Reply, turn: int, model: str) -> dict[str, Any]:
    """The answer to a request without streaming."""
    blocks: list[Any] = [TextBlock(type="text", text=reply.text)] if reply.text else []
    for call in reply.calls:
        blocks.append(ToolUseBlock(type="tool_use", id=call.id, name=call.name, input=json.loads(call.arguments)))
    message = Message(
        id=f"msg_{turn}",
        content=blocks,
        model=model,
        role="assistant",
        stop_reason=_STOP[reply.finish_reason],
        type="message",
        usage=_usage(reply, reply.output_tokens),
    )
    return message.model_dump(mode="json", exclude_none=True)


def events(reply: Reply, turn: int, model: str, body: dict[str, Any]) -> Iterator[str]:
    """The answer as server-sent events."""
    start = Message(id=f"msg_{turn}", content=[], model=model, role="assistant", type="message", usage=_usage(reply, 1))
    yield _event(RawMessageStartEvent(type="message_start", message=start))
    yield KEEP_ALIVE
    index = 0
    if reply.reasoning:
        yield _begin(index, ThinkingBlock(type="thinking", thinking="", signature=""))
        for part in pieces(reply.reasoning):
            yield _delta(index, ThinkingDelta(type="thinking_delta", thinking=part))
        yield _delta(index, SignatureDelta(type="signature_delta", signature=SIGNATURE))
        yield _event(RawContentBlockStopEvent(type="content_block_stop", index=index))
        index += 1
    if reply.text:
        yield _begin(index, TextBlock(type="text", text=""))
        for part in pieces(reply.text):
            yield _delta(index, TextDelta(type="text_delta", text=part))
        yield _event(RawContentBlockStopEvent(type="content_block_stop", index=index))
        index += 1
    for call in reply.calls:
        yield _begin(index, ToolUseBlock(type="tool_use", id=call.id, name=call.name, input={}))
        for part in pieces(call.arguments):
            yield _delta(index, InputJSONDelta(type="input_json_delta", partial_json=part))
        yield _event(RawContentBlockStopEvent(type="content_block_stop", index=index))
        index += 1
    delta = RawMessageDeltaEvent(
        type="message_delta",
        # Not checked: an unknown reason is one that the SDK's types do not have.
        delta=Delta.construct(stop_reason=_STOP[reply.finish_reason]),
        usage=MessageDeltaUsage(output_tokens=reply.output_tokens if reply.report_usage else 0),
    )
    yield _event(delta)
    yield _event(RawMessageStopEvent(type="message_stop"))


def _begin(index: int, block: TextBlock | ToolUseBlock | ThinkingBlock) -> str:
    return _event(RawContentBlockStartEvent(type="content_block_start", index=index, content_block=block))


def _delta(index: int, delta: TextDelta | InputJSONDelta | ThinkingDelta | SignatureDelta) -> str:
    return _event(RawContentBlockDeltaEvent(type="content_block_delta", index=index, delta=delta))


def _event(event: BaseModel) -> str:
    payload = event.model_dump(mode="json", exclude_none=True, warnings=False)
    return f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n"


def _usage(reply: Reply, output_tokens: int) -> Usage:
    """Anthropic counts what it read from its cache, or wrote to it, apart from the input."""
    if not reply.report_usage:
        return Usage(input_tokens=0, output_tokens=0)
    return Usage(
        input_tokens=reply.input_tokens - reply.cache_read_tokens - reply.cache_write_tokens,
        output_tokens=output_tokens,
        cache_read_input_tokens=reply.cache_read_tokens,
        cache_creation_input_tokens=reply.cache_write_tokens,
    )
