"""What a model was asked and what it replied, as the bytes that the digests in a call's fact are of.

An operator who has calls recorded finds these bytes as artifacts under the same digests.
"""

from __future__ import annotations

from hashlib import sha256

from pydantic import TypeAdapter

from codeagent.messages.conversation import ChatMessage, ToolSpec
from codeagent.providers.protocol import ModelReply, ModelRequest

_MODEL = TypeAdapter(str)
_MESSAGES = TypeAdapter(tuple[ChatMessage, ...])
_TOOLS = TypeAdapter(tuple[ToolSpec, ...])


def request_document(request: ModelRequest) -> bytes:
    """JSON: `model` as the vendor names it, `max_output_tokens` as they were before a budget has cut them, `messages`,
    `tools`. The same request always has the same bytes."""
    return b'{"model":%b,"max_output_tokens":%d,"messages":%b,"tools":%b}' % (
        _MODEL.dump_json(request.model),
        request.max_output_tokens,
        _MESSAGES.dump_json(request.messages),
        _TOOLS.dump_json(request.tools),
    )


def reply_document(reply: ModelReply) -> bytes:
    """JSON of the whole message: its text and its tool calls."""
    return reply.message.model_dump_json().encode()


def digest_of(document: bytes) -> str:
    return f"sha256:{sha256(document).hexdigest()}"
