"""Our conversation in pydantic-ai's message types, and its answer in ours. Text only: no URLs, no files."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.messages import ModelRequest as VendorRequest
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

from codeagent.messages.conversation import (
    AssistantMessage,
    ChatMessage,
    FinishReason,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
)

_FINISH = {
    "stop": FinishReason.STOP,
    "tool_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def to_vendor(messages: Sequence[ChatMessage]) -> list[ModelMessage]:
    """Repaired messages, those between two answers of the model together in one request."""
    translated: list[ModelMessage] = []
    told: list[ModelRequestPart] = []
    for message in messages:
        if not isinstance(message, AssistantMessage):
            told.append(_told(message))
            continue
        if told:
            translated.append(VendorRequest(parts=told))
            told = []
        translated.append(ModelResponse(parts=_said(message)))
    if told:
        translated.append(VendorRequest(parts=told))
    return translated


def tool_parameters(tools: Sequence[ToolSpec]) -> ModelRequestParameters:
    # strict=False: servers differ in what they allow of a strict schema, and the agent checks arguments anyway.
    definitions = [
        ToolDefinition(
            name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters), strict=False
        )
        for tool in tools
    ]
    return ModelRequestParameters(function_tools=definitions)


def from_vendor(response: ModelResponse) -> AssistantMessage:
    """Text and tool calls; thinking is the vendor's own affair. Arguments stay the text the model wrote."""
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    calls = tuple(
        ToolCall(id=part.tool_call_id, name=part.tool_name, arguments=_arguments(part))
        for part in response.parts
        if isinstance(part, ToolCallPart)
    )
    return AssistantMessage(text=text, tool_calls=calls)


def finish_reason(response: ModelResponse) -> FinishReason:
    return _FINISH.get(response.finish_reason or "", FinishReason.OTHER)


def usage_of(usage: RequestUsage) -> Usage | None:
    """None when the vendor has not counted anything yet."""
    if not (usage.input_tokens or usage.output_tokens):
        return None
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )


def _told(message: ChatMessage) -> ModelRequestPart:
    if isinstance(message, SystemMessage):
        return SystemPromptPart(content=message.text)
    if isinstance(message, ToolMessage):
        return ToolReturnPart(
            tool_name=message.name,
            content=message.text,
            tool_call_id=message.tool_call_id,
            outcome="failed" if message.is_error else "success",
        )
    return UserPromptPart(content=message.text)


def _said(message: AssistantMessage) -> list[ModelResponsePart]:
    parts: list[ModelResponsePart] = [TextPart(content=message.text)] if message.text.strip() else []
    parts.extend(
        ToolCallPart(tool_name=call.name, args=call.arguments, tool_call_id=call.id) for call in message.tool_calls
    )
    return parts


def _arguments(part: ToolCallPart) -> str:
    written = part.args if isinstance(part.args, str) else part.args_as_json_str()
    return written if written.strip() else "{}"
