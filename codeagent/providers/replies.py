"""The last step of every provider: ids, finish reason and usage of an answer in the one form agents may rely on."""

from __future__ import annotations

from dataclasses import replace

from codeagent.messages.conversation import AssistantMessage, FinishReason, Usage
from codeagent.providers import history, usage
from codeagent.providers.protocol import ModelReply, ModelRequest


def normalised(request: ModelRequest, reply: ModelReply) -> ModelReply:
    """`reply` with unique call ids and a finish reason that fits its content; usage is estimated when absent."""
    calls = history.with_ids(reply.message.tool_calls, history.call_ids(request.messages), len(request.messages))
    message = AssistantMessage(text=reply.message.text, tool_calls=calls)
    counted = reply.usage if reply.usage != Usage() else usage.estimate(request, message)
    return replace(reply, message=message, usage=counted, finish_reason=_fitting(reply.finish_reason, message))


def _fitting(reason: FinishReason, message: AssistantMessage) -> FinishReason:
    """Some servers say `stop` after a tool call, or `tool_calls` without one."""
    if message.tool_calls and reason in {FinishReason.STOP, FinishReason.OTHER}:
        return FinishReason.TOOL_CALLS
    if not message.tool_calls and reason is FinishReason.TOOL_CALLS:
        return FinishReason.STOP
    return reason
