"""Examples about members, quotas and the installation, by the names of their schemas."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import MORNING

_MEMBER: dict[str, Any] = {
    "id": "usr_01k5h3v9q7e6t8w2x4y6z8a0b5",
    "role": "developer",
    "email": "ada@example.org",
    "password_change_required": True,
    "created_at": MORNING,
}
_TENANT: dict[str, Any] = {
    "id": "ten_01k5h3v9q7e6t8w2x4y6z8a0b6",
    "name": "Example",
    "created_at": MORNING,
    "suspended_at": None,
}
_QUOTA: dict[str, Any] = {"concurrent_sandboxes": 8, "cpu_seconds_per_day": 36_000, "gib_hours_per_day": "24.5"}
_STANDING: dict[str, Any] = {
    **_QUOTA,
    "cpu_seconds_used": 1_204.5,
    "gib_hours_used": 0.61,
    "resets_at": "2026-11-24T00:00:00Z",
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "MemberBody": {"email": "ada@example.org", "role": "developer"},
    "RoleBody": {"role": "viewer"},
    "MemberModel": _MEMBER,
    "NewMemberModel": {**_MEMBER, "temporary_password": "..."},
    "TemporaryPasswordModel": {"temporary_password": "..."},
    "MemberPage": {"items": [_MEMBER], "next_cursor": None},
    "RoleList": {
        "items": [{"name": "viewer", "scopes": ["agents:read", "projects:read", "runs:read", "usage:read"]}],
    },
    "QuotaModel": {
        "rates": [
            {
                "name": "submit",
                "scope": "credential",
                "requests": 600,
                "window_seconds": 60,
                "remaining": 597,
                "resets_in_seconds": 41,
            }
        ],
        "concurrency": [{"name": "streams", "limit": 1_000, "in_use": 3}],
        "sandboxes": _STANDING,
    },
    "SandboxQuotaBody": _QUOTA,
    "SandboxQuotaModel": {"version": 1, **_QUOTA, "standing": _STANDING},
    "TenantModel": _TENANT,
    "TenantPage": {"items": [_TENANT], "next_cursor": None},
    "ProjectionList": {"items": [{"name": "usage", "position": "3e9-4b7", "behind_seconds": 0.2}]},
    "BacklogList": {
        "items": [{"ledger": "effects", "kind": "provider", "waiting": 12, "overdue": 0, "oldest_seconds": 4.2}],
    },
    "InstallationModel": {"version": "0.1.0", "migration": "0010", "expected_migration": "0010", "current": True},
}
