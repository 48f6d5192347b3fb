"""Token counts where nobody counted them: four characters a token, which errs a little on the high side for code."""

from __future__ import annotations

from codeagent.messages.conversation import AssistantMessage, Usage
from codeagent.providers.protocol import ModelRequest

CHARACTERS_PER_TOKEN = 4


def estimate(request: ModelRequest, message: AssistantMessage) -> Usage:
    """What a call would have used, from the length of its texts."""
    return Usage(input_tokens=estimate_input(request), output_tokens=_tokens(_length(message)))


def estimate_input(request: ModelRequest) -> int:
    """Tokens of everything the model is told: the conversation and the tools on offer."""
    tools = sum(len(tool.name) + len(tool.description) + len(str(tool.parameters)) for tool in request.tools)
    return _tokens(tools + sum(_length(message) for message in request.messages))


def estimate_broken(request: ModelRequest, counted: Usage | None, characters: int) -> Usage:
    """What an attempt has used whose answer broke off after so many `characters`: what the vendor has `counted` until
    then, which is nothing or no more than a beginning of the output, and as much as has come."""
    counted = counted or Usage()
    written = min(_tokens(characters), request.max_output_tokens)
    return counted.model_copy(
        update={
            "input_tokens": counted.input_tokens or estimate_input(request),
            "output_tokens": max(counted.output_tokens, written),
        }
    )


def _length(message: object) -> int:
    length = len(getattr(message, "text", ""))
    if isinstance(message, AssistantMessage):
        length += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return length


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
