"""One example of each thing the API takes or answers with, by the name of its schema.

They stand in the OpenAPI document; tests/architecture/test_openapi.py holds them against their schemas.
"""

from __future__ import annotations

from typing import Any

import orjson

from codeagent.edge import evidence_examples
from codeagent.edge.approval_examples import APPROVALS
from codeagent.edge.people_examples import PEOPLE_EXAMPLES
from codeagent.edge.project_examples import PROJECT_EXAMPLES, PROJECT_ID
from codeagent.edge.usage_examples import USAGE_EXAMPLES

RUN_ID = "run_01k5h3v9q7e6t8w2x4y6z8a0b1"
KEY_ID = "key_01k5h3v9q7e6t8w2x4y6z8a0b2"
AGENT_ID = "agt_01k5h3v9q7e6t8w2x4y6z8a0b4"
ACCOUNT_ID = "sva_01k5h3v9q7e6t8w2x4y6z8a0b3"
WEBHOOK_ID = "whk_01k5h3v9q7e6t8w2x4y6z8a0b4"
DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SOURCE = {"kind": "archive", "digest": DIGEST}
MORNING, LATER, MONTHS_LATER = "2026-11-23T09:30:00Z", "2026-11-23T09:30:06Z", "2027-02-21T09:30:00Z"
CURSOR = "MjAyNi0xMS0yM1QwOTozMDowMFo"

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
    "steps": 5,
    "usage": {"input_tokens": 36_105, "output_tokens": 865, "cost_usd": "0"},
    "created_at": MORNING,
    "updated_at": LATER,
}
_RUN: dict[str, Any] = {
    **_SUMMARY,
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
_EVENT: dict[str, Any] = {
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
_AGENT: dict[str, Any] = {
    "id": AGENT_ID,
    "name": "reviewer",
    "description": "Reads and reports.",
    "builtin": False,
    "active_version": 3,
    "former_version": 2,
    "latest_version": 3,
    "version": 9,
    "created_by": "usr_1",
    "created_at": MORNING,
    "updated_at": LATER,
    "archived_at": None,
}
_DEFINED: dict[str, Any] = {
    "instructions": "Change nothing. Report what you find.",
    "model": "builtin/repair",
    "tools": ["read_file", "search", "submit"],
    "limits": {"max_steps": 20, "max_cost_usd": "0.50"},
}
_AGENT_VERSION: dict[str, Any] = {
    "agent_id": AGENT_ID,
    "agent": "reviewer",
    "number": 3,
    "state": "active",
    **_DEFINED,
    "digest": DIGEST,
    "created_by": "usr_1",
    "created_at": MORNING,
}
_PROVIDER: dict[str, Any] = {
    "name": "openai",
    "kind": "openai",
    "host": None,
    "key_configured": True,
    "models": ["openai/gpt-5"],
}
_MODEL: dict[str, Any] = {
    "id": "openai/gpt-5",
    "provider": "openai",
    "is_default": True,
    "context_window": 400_000,
    "prices": {"input_usd": "1.25", "output_usd": "10", "cache_read_usd": "0.125", "cache_write_usd": "1.25"},
}
_KEY: dict[str, Any] = {
    "id": KEY_ID,
    "name": "CI",
    "status": "active",
    "hint": "cak_3fQx",
    "principal_id": "usr_1",
    "created_by": "usr_1",
    "scopes": ["runs:read", "runs:write"],
    "networks": ["192.0.2.0/24"],
    "replaces": None,
    "replaced_by": None,
    "version": 1,
    "created_at": MORNING,
    "expires_at": MONTHS_LATER,
    "revoked_at": None,
    "last_used_at": LATER,
}
_ACCOUNT: dict[str, Any] = {
    "id": ACCOUNT_ID,
    "name": "nightly builds",
    "scopes": ["runs:read", "runs:write"],
    "created_at": MORNING,
}
_SESSION: dict[str, Any] = {
    "id": "ses_1",
    "client_id": "console",
    "network": "c0ffee",
    "current": True,
    "created_at": MORNING,
    "last_used_at": LATER,
    "expires_at": MONTHS_LATER,
}
_WEBHOOK: dict[str, Any] = {
    "id": WEBHOOK_ID,
    "url": "https://hooks.example.com/codeagent",
    "event_types": ["run.completed", "run.failed"],
    "description": "Tells the team.",
    "payload_format": "standard",
    "status": "enabled",
    "disabled_reason": "",
    "previous_until": None,
    "version": 1,
    "created_at": MORNING,
    "updated_at": MORNING,
}
_DELIVERY: dict[str, Any] = {
    "id": "dlv_01k5h3v9q7e6t8w2x4y6z8a0b5",
    "webhook_id": WEBHOOK_ID,
    "event_id": _EVENT["id"],
    "event_type": "run.completed",
    "state": "pending",
    "attempts": 1,
    "next_attempt_at": LATER,
    "last_status": 503,
    "last_error": "bad_status",
    "last_latency_ms": 84,
    "created_at": MORNING,
    "updated_at": MORNING,
}
_ATTEMPT = {"number": 1, "ended_at": MORNING, "status": 503, "error": "bad_status", "latency_ms": 84}


EXAMPLES: dict[str, dict[str, Any]] = {
    **PROJECT_EXAMPLES,
    **evidence_examples.EXAMPLES,
    "RunBody": {
        "task": "Make the tests pass.",
        "project_id": PROJECT_ID,
        "source": SOURCE,
        "agent": "coder",
        "model": "builtin/repair",
        "limits": {"max_steps": 50, "max_cost_usd": "2.50", "deadline_seconds": 1_800},
        "approvals": {"tools": ["shell"], "expires_seconds": 3_600},
    },
    **APPROVALS,
    "CancelBody": {"reason": "Superseded by another run."},
    "RunModel": _RUN,
    "RunPage": {"items": [_SUMMARY], "next_cursor": None},
    "EventPage": {"items": [_EVENT], "next_after": 2, "head": 37},
    "FeedPage": {"items": [_EVENT], "next_cursor": None, "cursor": "8401.1207"},
    "TicketBody": {"run_id": RUN_ID},
    "TicketModel": {"ticket": "cst_4kD0...", "run_id": RUN_ID, "expires_at": LATER},
    "UploadModel": {
        "digest": DIGEST,
        "size_bytes": 18_204,
        "files": 31,
        "dropped": 0,
        "href": f"/v1/artifacts/{DIGEST}",
    },
    "AgentBody": {"name": "reviewer", "description": "Reads and reports."},
    "AgentChanges": {"description": "Reads, and reports what it finds."},
    "AgentModel": _AGENT,
    "AgentPage": {"items": [_AGENT], "next_cursor": None},
    "VersionBody": {**_DEFINED, "tools": ["read_file", "search"]},
    "AgentVersionModel": _AGENT_VERSION,
    "AgentVersionPage": {"items": [_AGENT_VERSION], "next_cursor": "3"},
    "ProviderPage": {"items": [_PROVIDER], "next_cursor": None},
    "OfferedModelPage": {"items": [_MODEL], "next_cursor": None},
    "KeyBody": {"name": "CI", "scopes": ["runs:read", "runs:write"], "networks": ["192.0.2.0/24"]},
    "RotateBody": {"overlap_seconds": 3_600},
    "KeyModel": _KEY,
    "MadeKeyModel": {**_KEY, "key": "cak_3fQx..."},
    "KeyPage": {"items": [_KEY], "next_cursor": CURSOR},
    "WebhookBody": {name: _WEBHOOK[name] for name in ("url", "event_types", "description")},
    "WebhookPatch": {"status": "enabled"},
    "RotateSecretBody": {"overlap_seconds": 3_600},
    "WebhookModel": _WEBHOOK,
    "ShownWebhookModel": {**_WEBHOOK, "secret": "whsec_MfKQ..."},
    "WebhookPage": {"items": [_WEBHOOK], "next_cursor": CURSOR},
    "DeliveryModel": _DELIVERY,
    "DeliveryDetailModel": {**_DELIVERY, "log": [_ATTEMPT]},
    "DeliveryPage": {"items": [_DELIVERY], "next_cursor": CURSOR},
    "ServiceAccountBody": {"name": "nightly builds", "scopes": ["runs:read", "runs:write"]},
    "ServiceAccountModel": _ACCOUNT,
    "NewServiceAccountModel": {**_ACCOUNT, "client_secret": "csa_7hPw..."},
    "ServiceAccountPage": {"items": [_ACCOUNT], "next_cursor": None},
    "MeModel": {
        "id": "usr_1",
        "type": "app_user",
        "tenant_id": "ten_1",
        "scopes": ["agents:read", "projects:read", "providers:read", "runs:read", "usage:read"],
        "role": "viewer",
        "email": "ada@example.org",
        "created_at": MORNING,
        "password_change_required": False,
    },
    "LoginSessionPage": {"items": [_SESSION], "next_cursor": None},
    **USAGE_EXAMPLES,
    **PEOPLE_EXAMPLES,
    "PasswordBody": {"current_password": "...", "new_password": "..."},
    "AuthorizeBody": {
        "client_id": "cli",
        "email": "ada@example.org",
        "password": "...",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    },
    "CodeModel": {"code": "cac_9dLq...", "expires_in": 60, "iss": "https://codeagent.example.com"},
    "TokenForm": {"grant_type": "refresh_token", "client_id": "cli", "refresh_token": "crt_5mZe..."},
    "RevokeForm": {"token": "crt_5mZe...", "client_id": "cli"},
    "TokenModel": {
        "access_token": "eyJhbGciOiJFUzI1NiIs...",
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "runs:read runs:write",
        "refresh_token": "crt_5mZe...",
    },
    "OAuthProblem": {"error": "invalid_grant", "error_description": "The refresh token is not valid."},
    "Liveness": {"status": "ok"},
    "Readiness": {"status": "ok", "checks": {"database": True, "broker": True}},
    "Version": {"version": "0.1.0"},
    "SchemaList": {"items": [{"name": "run.completed", "version": 1, "href": "/v1/schemas/run.completed/1"}]},
    "Problem": {
        "type": "https://codeagent.io/problems/not_found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no such run.",
        "code": "not_found",
        "retryable": False,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "errors": [],
    },
}
"""What a schema that is not here shows, its fields show."""

EVENT_STREAM = f"event: run.started\nid: 2\ndata: {orjson.dumps(_EVENT).decode()}\n\n"
