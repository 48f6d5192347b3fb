"""A call of an MCP server's tool: asked for as an effect of its own kind, and what its answer means to the run."""

from __future__ import annotations

from codeagent.agent.draft import Draft
from codeagent.agent.state import Pending
from codeagent.messages import events
from codeagent.messages.conversation import ToolCall
from codeagent.messages.mcp import McpPin, McpTool, McpTools
from codeagent.messages.mcp_calls import CallMcpTool, McpResult
from codeagent.messages.values import Outcome

LOST = "Nobody knows whether the server has carried this out. Look before you ask for it again."


def ask(draft: Draft, call: ToolCall, offer: McpTools, tool: McpTool) -> None:
    effect_id = draft.call_started(call)
    command = CallMcpTool(
        effect_id=effect_id,
        run_id=draft.run_id,
        server=offer.server,
        tool=tool.name,
        call=call,
        pin=McpPin(tools=tuple(pinned.name for pinned in offer.tools), digest=offer.digest),
        read_only=tool.read_only,
    )
    draft.effect(effect_id, "mcp", command)


def answered(draft: Draft, pending: Pending, result: McpResult) -> None:
    """The model is told what came back, or why nothing did: it may go on without that."""
    call = pending.call
    assert call is not None
    if result.outcome is Outcome.DONE:
        draft.emit(
            events.ToolCallCompleted(
                tool_call_id=call.id,
                name=call.name,
                step=draft.state.step,
                effect_id=result.effect_id,
                attempt=result.attempt,
                output=result.output,
                output_ref=result.output_ref,
                reason="error" if result.is_error else "ok",
                duration_seconds=result.duration_seconds,
                checkpoint=draft.state.checkpoint,
            )
        )
        return
    lost = result.outcome is Outcome.WORKER_LOST
    code, error = ("worker_lost", LOST) if lost else (result.error_reason, result.error)
    draft.tool_failed(call, code, error, result)


def recorded(run_id: str, told: events.ToolCallCompleted | events.ToolCallFailed) -> McpResult:
    """The answer that led to a fact, as far as a decision looks at it."""
    assert told.effect_id is not None
    result = McpResult(effect_id=told.effect_id, run_id=run_id, attempt=told.attempt, outcome=Outcome.DONE)
    if isinstance(told, events.ToolCallCompleted):
        said = {"output": told.output, "output_ref": told.output_ref, "is_error": told.reason == "error"}
        return result.model_copy(update={**said, "duration_seconds": told.duration_seconds})
    outcome = Outcome.WORKER_LOST if told.code == "worker_lost" else Outcome.FAILED
    return result.model_copy(update={"outcome": outcome, "error_reason": told.code, "error": told.error})
