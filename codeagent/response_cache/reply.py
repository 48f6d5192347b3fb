"""A reply as it is kept, and which replies may be."""

from __future__ import annotations

import orjson
from pydantic import ValidationError

from codeagent.messages.conversation import AssistantMessage, Data, FinishReason, ToolCall
from codeagent.providers.protocol import ModelReply, ModelRequest

_WHOLE = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS})


class KeptReply(Data):
    """What of a reply is given again. What it has used and cost was paid for once, and is not in it."""

    message: AssistantMessage
    finish_reason: FinishReason
    response_model: str


def is_good(request: ModelRequest, reply: ModelReply) -> bool:
    """Whether a run can go on from it as it is: it ended by itself, it says something, and whatever it calls was
    offered and can be read. Anything else may be better the next time."""
    message = reply.message
    if reply.finish_reason not in _WHOLE or not (message.text.strip() or message.tool_calls):
        return False
    offered = {tool.name for tool in request.tools}
    return all(call.name in offered and _can_be_read(call) for call in message.tool_calls)


def _can_be_read(call: ToolCall) -> bool:
    try:
        return isinstance(orjson.loads(call.arguments), dict)
    except orjson.JSONDecodeError:
        return False


def packed(reply: ModelReply) -> bytes:
    kept = KeptReply(message=reply.message, finish_reason=reply.finish_reason, response_model=reply.response_model)
    return kept.model_dump_json().encode()


def unpacked(request: ModelRequest, document: bytes) -> ModelReply | None:
    """The reply, without use or cost; None where the document is none that would be kept for this request."""
    try:
        kept = KeptReply.model_validate_json(document)
    except ValidationError:
        return None
    reply = ModelReply(kept.message, finish_reason=kept.finish_reason, response_model=kept.response_model)
    return reply if is_good(request, reply) else None
