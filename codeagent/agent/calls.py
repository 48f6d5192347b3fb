"""Carrying out the calls of a reply: in their order, one after the other, and those side by side that only read.

A call that may change files, may end the run, or is a person's to allow waits until all before it have been answered,
and everything after it waits for it. So whatever a call reads, it sees the files that the calls before it have left.
"""

from __future__ import annotations

from codeagent.agent import approvals, budget, delegates, delegation, mcp, mcp_calls, tools
from codeagent.agent.draft import Draft
from codeagent.agent.state import RunState
from codeagent.messages.conversation import ToolCall
from codeagent.messages.events import Ending
from codeagent.messages.values import CallTool, RunStatus

MOST_READS = 4
"""Of one run at once, which leaves room for other runs on a worker."""


def carry_on(draft: Draft) -> Ending | None:
    """Starts the queued calls whose turn it is, and answers those that cannot be carried out. Returns how the run ends,
    where a call or a used-up limit ends it. Nothing is open afterwards, and nothing asked, only if no call is left."""
    while draft.state.queue:
        call = draft.state.queue[0]
        try:
            arguments = _arguments(draft.state, call)
        except tools.BadToolCall as error:
            draft.tool_failed(call, error.code, str(error))
            continue
        if draft.state.open and not _may_join(draft.state, call):
            return None
        if isinstance(arguments, tools.Delegate):
            delegation.start(draft, call, arguments)
            continue
        if isinstance(arguments, tools.Submit):
            return Ending(status=RunStatus.COMPLETED, reason="", message=arguments.summary)
        if call.name in tools.COMMANDS and (ending := budget.commands_exceeded(draft.state)) is not None:
            return ending
        if approvals.needed(draft.state, call):
            approvals.ask(draft, call)
            return None
        start(draft, call)
    return None


def start(draft: Draft, call: ToolCall) -> None:
    """Has it carried out, in the run's sandbox or by the server whose tool it is."""
    if (found := mcp.find(draft.state.run.definition, call.name)) is not None:
        mcp_calls.ask(draft, call, *found)
        return
    draft.tool(call, CallTool(call=call, timeout_seconds=budget.command_seconds(draft.state)))


def _arguments(state: RunState, call: ToolCall) -> tools.ToolArguments | None:
    """None where whoever carries the call out reads them: they are too long to travel, or for a server outside. Raises
    `BadToolCall`."""
    tools.check_offered(call.name, state.tools)
    if call.name == tools.Delegate.TOOL:
        return delegates.parse(call)
    if call.arguments_ref:
        return None
    if call.name in tools.TOOLS:
        return tools.parse(call)
    mcp.parse(call)
    return None


def _may_join(state: RunState, call: ToolCall) -> bool:
    """Whether a call may run beside those that are open."""
    calls = [call, *(pending.call for pending in state.open if pending.call is not None)]
    if len(calls) > MOST_READS or approvals.needed(state, call):
        return False
    if state.run.limits.sandbox is not None and call.name in tools.COMMANDS:
        # What the run's commands may use together is counted after each of them.
        return False
    return all(one.name in tools.READING for one in calls)
