"""Asking a person before a tool call: which calls, what is asked, and how the run goes on."""

from __future__ import annotations

import json
from datetime import timedelta

from codeagent.agent import mcp, tools
from codeagent.agent.draft import Draft, arguments_digest
from codeagent.agent.state import RunState
from codeagent.messages import events
from codeagent.messages.conversation import ToolCall
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.messages.values import ApprovalRequest

REJECTED = "approval_rejected"
"""Code of the `tool.call.failed` of a call that a person has refused."""
REFUSED = "A person refused this call. It was not carried out; do not try the same in another way."
"""What the fact says of it. The comment is its author's, and stands in their own fact alone."""


def needed(state: RunState, call: ToolCall) -> bool:
    """Whether a person has to allow this call. The call has been read: its tool and its arguments exist."""
    policy = state.run.approvals
    if policy is None or call.name in state.always_allowed:
        return False
    if policy.tools == "all_changing":
        return call.name in tools.CHANGING | mcp.changing(state.run.definition)
    return call.name in policy.tools


def ask(draft: Draft, call: ToolCall) -> None:
    """The run waits, until its answer or the end of the request. Its deadline stands still meanwhile, but not that of a
    child: its parent waits, whose does not."""
    policy = draft.state.run.approvals
    assert policy is not None
    expires_at = draft.now + timedelta(seconds=policy.expires_seconds)
    if draft.state.run.parent is not None:
        expires_at = min(expires_at, draft.state.deadline_at)
    number = str(draft.state.version + 1)
    request = ApprovalRequest(
        approval_id=typed_id("apr", derived_uuid(draft.run_id, "approval", number)),
        tool_call_id=call.id,
        tool=call.name,
        arguments=call.arguments,
        arguments_ref=call.arguments_ref,
        arguments_digest=arguments_digest(call),
        reason=f"The run asks before each call of {call.name}.",
        requested_at=draft.now,
        expires_at=expires_at,
    )
    draft.emit(events.InputRequired(request=request))
    draft.stop_timer("deadline")
    draft.timer("approval_expiry", expires_at)


def resume(draft: Draft, request: ApprovalRequest) -> None:
    """The run goes on, with as much time as it had left when it asked; a child, with what is left of it."""
    waited = max(draft.now - request.requested_at, timedelta(0))
    deadline_at = draft.state.deadline_at + (waited if draft.state.run.parent is None else timedelta(0))
    draft.stop_timer("approval_expiry")
    draft.emit(events.RunResumed(deadline_at=deadline_at))
    draft.timer("deadline", deadline_at)


def refusal(error: str, comment: str) -> str:
    """What the model is told. The comment is quoted, so that nothing in it passes for words of ours."""
    return f"{error} Their comment: {json.dumps(comment, ensure_ascii=False)}" if comment else error
