"""Examples of what the API takes and answers with about projects and sessions."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import LATER, MORNING, PROJECT_ID, RUN_ID, SESSION_ID, VERIFICATION

_PROJECT_BODY: dict[str, Any] = {
    "name": "shop",
    "repository": "https://git.example.org/team/shop.git",
    "default_ref": "main",
    "model": "openai/gpt-5",
    "limits": {"max_steps": 20, "max_cost_usd": "1.50"},
    "quotas": {"max_concurrent_runs": 4, "max_runs_per_day": None},
    "verification": VERIFICATION,
    "dependencies": {
        "install": "python3 -m venv --system-site-packages /dependencies && pip install -r requirements.txt",
        "lock_files": ["requirements.txt"],
    },
}
_PROJECT: dict[str, Any] = {
    **_PROJECT_BODY,
    "id": PROJECT_ID,
    "agent": None,
    "image": "default",
    "git_credential": {"username": "x-access-token", "set_at": LATER},
    "version": 2,
    "archived": False,
    "created_at": MORNING,
    "updated_at": LATER,
    "archived_at": None,
}
_CONVERSATION_STATS: dict[str, Any] = {
    "runs": {"submitted": 3, "completed": 2, "failed": 1, "canceled": 0, "rejected": 0},
    "calls": 14,
    "unpriced_calls": 0,
    "input_tokens": 48_211,
    "output_tokens": 3_907,
    "cost_usd": "0.14",
    "last_run_id": RUN_ID,
    "last_run_status": "completed",
    "last_active_at": LATER,
}
_CONVERSATION: dict[str, Any] = {
    "id": SESSION_ID,
    "project_id": PROJECT_ID,
    "title": "Rounding in the cart",
    "version": 1,
    "closed": False,
    "created_at": MORNING,
    "updated_at": MORNING,
    "closed_at": None,
    "stats": _CONVERSATION_STATS,
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "ProjectBody": _PROJECT_BODY,
    "ProjectPatch": {"default_ref": "release", "quotas": {"max_runs_per_day": 100}},
    "ProjectModel": _PROJECT,
    "ProjectPage": {"items": [_PROJECT], "next_cursor": None},
    "ProjectStatsModel": {
        "runs": {"completed": 31, "failed": 4},
        "input_tokens": 1_204_118,
        "output_tokens": 41_002,
        "cost_usd": "3.21",
        "duration_p50_seconds": 41.2,
        "duration_p95_seconds": 180.5,
        "last_run_at": MORNING,
    },
    "SessionBody": {"project_id": PROJECT_ID, "title": "Rounding in the cart"},
    "SessionPatch": {"title": "Rounding"},
    "SessionStatsModel": _CONVERSATION_STATS,
    "SessionModel": _CONVERSATION,
    "SessionPage": {"items": [_CONVERSATION], "next_cursor": None},
    "MessageBody": {"content": "Now add a test for it.", "limits": {"max_steps": 20}},
    "GitCredentialBody": {"username": "x-access-token", "token": "..."},
}
