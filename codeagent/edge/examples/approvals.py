"""One example of each thing about approvals, by the name of its schema."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import DIGEST, MORNING, RUN_ID

_APPROVAL: dict[str, Any] = {
    "id": "apr_01k5h3v9q7e6t8w2x4y6z8a0b4",
    "run_id": RUN_ID,
    "status": "pending",
    "kind": "tool_call",
    "tool": "shell",
    "tool_call_id": "call_7",
    "arguments": '{"command": "make test"}',
    "arguments_ref": None,
    "arguments_digest": DIGEST,
    "reason": "The run asks before each call of shell.",
    "decisions": ["allow_once", "allow_always", "reject"],
    "requested_at": MORNING,
    "expires_at": "2026-11-24T09:30:00Z",
    "decision": None,
    "comment": "",
    "answered_by": None,
    "answered_at": None,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "AnswerBody": {"decision": "reject", "comment": "Use the staging database."},
    "ApprovalModel": _APPROVAL,
    "ApprovalPage": {"items": [_APPROVAL], "next_cursor": None},
}
