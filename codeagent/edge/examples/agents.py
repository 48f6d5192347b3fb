"""Examples about agents, providers and models."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import AGENT_ID, DIGEST, LATER, MORNING

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
    "approvals": {"tools": ["shell"], "expires_seconds": 3_600},
    "egress": ["*.pythonhosted.org:443", "pypi.org:443"],
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

EXAMPLES: dict[str, dict[str, Any]] = {
    "AgentBody": {"name": "reviewer", "description": "Reads and reports."},
    "AgentPatch": {"description": "Reads, and reports what it finds."},
    "AgentModel": _AGENT,
    "AgentPage": {"items": [_AGENT], "next_cursor": None},
    "VersionBody": {**_DEFINED, "tools": ["read_file", "search"], "egress": ["pypi.org", "*.pythonhosted.org"]},
    "AgentVersionModel": _AGENT_VERSION,
    "AgentVersionPage": {"items": [_AGENT_VERSION], "next_cursor": "3"},
    "ProviderPage": {"items": [_PROVIDER], "next_cursor": None},
    "OfferedModelPage": {"items": [_MODEL], "next_cursor": None},
}
