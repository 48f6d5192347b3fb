"""Examples about agents, providers and models."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import AGENT_ID, DIGEST, LATER, MORNING

_ARM: dict[str, Any] = {
    "runs": 31,
    "open": 1,
    "succeeded": 12,
    "failed": 16,
    "canceled": 1,
    "excused": 1,
    "counted": 28,
    "value": 0.42857142857142855,
}
_VERDICT: dict[str, Any] = {
    "bound": {"metric": "success_rate", "relative": 0.1},
    "chance": 0.0007,
    "canary": _ARM,
    "active": {**_ARM, "runs": 280, "succeeded": 255, "failed": 21, "counted": 276, "value": 0.9239130434782609},
}
_AGENT: dict[str, Any] = {
    "id": AGENT_ID,
    "name": "reviewer",
    "description": "Reads and reports.",
    "builtin": False,
    "active_version": 3,
    "former_version": 2,
    "latest_version": 4,
    "canary": None,
    "rolled_back": {"number": 4, "at": LATER, "verdict": _VERDICT},
    "version": 9,
    "created_by": "usr_1",
    "created_at": MORNING,
    "updated_at": LATER,
    "archived_at": None,
}
_TOOL: dict[str, Any] = {
    "name": "search",
    "description": "Search the documentation.",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}
_DEFINED: dict[str, Any] = {
    "instructions": "Change nothing. Report what you find.",
    "model": "openai/gpt-5",
    "fallbacks": ["anthropic/claude-sonnet-4-5", "builtin/repair"],
    "tools": ["read_file", "search", "submit"],
    "limits": {"max_steps": 20, "max_cost_usd": "0.50"},
    "approvals": {"tools": ["shell"], "expires_seconds": 3_600},
    "egress": ["*.pythonhosted.org:443", "pypi.org:443"],
    "cache": {"ttl_seconds": 86_400},
    "delegates": ["tester@2"],
}
_AGENT_VERSION: dict[str, Any] = {
    "agent_id": AGENT_ID,
    "agent": "reviewer",
    "number": 3,
    "state": "active",
    **_DEFINED,
    "mcp": [{"server": "docs", "digest": DIGEST, "tools": [_TOOL]}],
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
    "health": {
        "closed": 2,
        "half_open": 0,
        "open": 1,
        "last_answer_at": LATER,
        "last_failure_at": MORNING,
        "last_failure_reason": "overloaded",
    },
}
_MODEL: dict[str, Any] = {
    "id": "openai/gpt-5",
    "provider": "openai",
    "is_default": True,
    "context_window": 400_000,
    "prices": {"input_usd": "1.25", "output_usd": "10", "cache_read_usd": "0.125", "cache_write_usd": "1.25"},
}

_STATISTICS: dict[str, Any] = {
    "version": 3,
    "runs": {"submitted": 41, "open": 1, "succeeded": 34, "failed": 3, "canceled": 2, "excused": 1},
    "success_rate": 0.9189,
    "steps": 371,
    "model_calls": 373,
    "cached_calls": 12,
    "unpriced_calls": 0,
    "input_tokens": 2_910_442,
    "output_tokens": 70_210,
    "cost_usd": "4.381",
    "cost_usd_p50": "0.098",
    "cost_usd_p95": "0.311",
    "duration_p50_seconds": 74.2,
    "duration_p95_seconds": 301.75,
    "tool_calls": 402,
    "tool_failures": 6,
    "approvals_asked": 12,
    "approvals_rejected": 1,
    "approvals_expired": 0,
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "AgentBody": {"name": "reviewer", "description": "Reads and reports."},
    "AgentPatch": {"description": "Reads, and reports what it finds."},
    "AgentModel": _AGENT,
    "AgentPage": {"items": [_AGENT], "next_cursor": None},
    "VersionBody": {
        **_DEFINED,
        "tools": ["read_file", "search"],
        "egress": ["pypi.org", "*.pythonhosted.org"],
        "mcp": [{"server": "docs", "tools": [_TOOL]}],
    },
    "AgentVersionModel": _AGENT_VERSION,
    "AgentVersionPage": {"items": [_AGENT_VERSION], "next_cursor": "3"},
    "CanaryBody": {
        "weight": 10,
        "minimum_runs": 20,
        "bounds": [
            {"metric": "success_rate", "relative": 0.1},
            {"metric": "duration_seconds_p95", "absolute": 900},
        ],
    },
    "CanaryModel": {
        "number": 4,
        "active": 3,
        "weight": 10,
        "minimum_runs": 20,
        "began_at": MORNING,
        "decides_at": 0.01,
        "bounds": [{**_VERDICT, "chance": 0.31}],
    },
    "AgentStatisticsPage": {
        "agent_id": AGENT_ID,
        "agent": "reviewer",
        "since": "2026-10-25",
        "until": "2026-11-23",
        "items": [_STATISTICS],
        "next_cursor": None,
    },
    "ProviderPage": {"items": [_PROVIDER], "next_cursor": None},
    "OfferedModelPage": {"items": [_MODEL], "next_cursor": None},
}
