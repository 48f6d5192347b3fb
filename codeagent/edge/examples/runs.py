"""Examples about runs, their events and artifacts."""

from __future__ import annotations

from typing import Any

import orjson

from codeagent.edge.examples.names import DIGEST, LATER, MORNING, PROJECT_ID, RUN_ID, SOURCE, VERIFICATION

_SUMMARY: dict[str, Any] = {
    "id": RUN_ID,
    "status": "completed",
    "status_reason": "done",
    "version": 37,
    "task": "Make the tests pass.",
    "agent": "coder",
    "agent_version": 1,
    "model": "builtin/repair",
    "project_id": PROJECT_ID,
    "session_id": None,
    "parent_run_id": None,
    "replays_run_id": None,
    "steps": 5,
    "usage": {"input_tokens": 36_105, "output_tokens": 865, "cost_usd": "0"},
    "created_at": MORNING,
    "updated_at": LATER,
}
_RUN: dict[str, Any] = {
    **_SUMMARY,
    "assignment": None,
    "image": "default",
    "fallbacks": [],
    "message": "Repaired. Changed: inventory/orders.py, line 9.",
    "source": SOURCE,
    "limits": {
        "max_steps": 50,
        "max_tokens": 2_000_000,
        "max_cost_usd": "2.50",
        "deadline_seconds": 1_800,
        "command_timeout_seconds": 120,
    },
    "approvals": {"tools": "all_changing", "expires_seconds": 86_400},
    "pending_approvals": [],
    "verification": VERIFICATION,
    "verdict": {
        "verdict": "passed",
        "reason": "ok",
        "exit_code": 0,
        "output": "exit code: 0\n3 passed",
        "output_ref": None,
        "restored": ["tests/conftest.py"],
    },
    "artifacts": [
        {
            "name": "patch.diff",
            "media_type": "text/x-diff",
            "size_bytes": 420,
            "digest": DIGEST,
            "href": f"/v1/artifacts/{DIGEST}",
        }
    ],
    "cancel_requested_at": None,
    "deadline_at": "2026-11-23T10:00:00Z",
}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "01935f6e-8c4b-7d2a-9c1e-3f5a7b9d1e20",
    "source": f"/tenants/ten_1/runs/{RUN_ID}",
    "type": "io.codeagent.run.started.v1",
    "subject": RUN_ID,
    "time": "2026-11-23T09:30:00.120Z",
    "sequence": "00000000000000000002",
    "datacontenttype": "application/json",
    "data": {"attempt": 1},
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "RunBody": {
        "task": "Make the tests pass.",
        "project_id": PROJECT_ID,
        "source": SOURCE,
        "agent": "coder",
        "model": "builtin/repair",
        "limits": {"max_steps": 50, "max_cost_usd": "2.50", "deadline_seconds": 1_800},
        "approvals": {"tools": ["shell"], "expires_seconds": 3_600},
        "verification": VERIFICATION,
    },
    "ReplayBody": {"agent": "reviewer@3", "until_version": 9},
    "CancelBody": {"reason": "Superseded by another run."},
    "RunModel": _RUN,
    "RunChanges": {
        "id": RUN_ID,
        "since": 2,
        "until": 37,
        "changes": [
            {"field": "status", "before": "working", "after": "completed"},
            {"field": "steps", "before": 0, "after": 5},
        ],
    },
    "RunPage": {"items": [_SUMMARY], "next_cursor": None},
    "ArtifactPage": {"items": _RUN["artifacts"], "next_cursor": None},
    "EventPage": {"items": [EVENT], "next_after": 2, "head": 37},
    "FeedPage": {"items": [EVENT], "next_cursor": None, "cursor": "8401.1207"},
    "TicketBody": {"run_id": RUN_ID},
    "TicketModel": {"ticket": "cst_4kD0...", "run_id": RUN_ID, "expires_at": LATER},
    "UploadModel": {
        "digest": DIGEST,
        "size_bytes": 18_204,
        "files": 31,
        "dropped": 0,
        "href": f"/v1/artifacts/{DIGEST}",
    },
}

EVENT_STREAM = f"event: run.started\nid: 2\ndata: {orjson.dumps(EVENT).decode()}\n\n"
