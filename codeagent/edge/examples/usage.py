"""Examples about usage and budgets, by the names of their schemas."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import DIGEST, LATER, MORNING, RUN_ID

_FIGURES: dict[str, Any] = {
    "calls": 5,
    "cached_calls": 0,
    "unpriced_calls": 0,
    "input_tokens": 36_105,
    "output_tokens": 865,
    "cache_read_tokens": 12_000,
    "cache_write_tokens": 0,
    "cost_usd": "0.0582",
    "sandbox_seconds": 3.811,
    "commands": 7,
    "cpu_seconds": 2.94,
    "gib_hours": 0.001059,
    "runs": {"submitted": 1, "completed": 1, "failed": 0, "canceled": 0, "rejected": 0},
}
_ITEM: dict[str, Any] = {
    **_FIGURES,
    "day": None,
    "model": None,
    "provider": None,
    "project_id": None,
    "session_id": None,
    "principal_id": None,
}
_BUDGET: dict[str, Any] = {
    "id": "bud_01k5h3v9q7e6t8w2x4y6z8a0b4",
    "name": "nightly builds",
    "scope": "principal",
    "scope_id": "sva_01k5h3v9q7e6t8w2x4y6z8a0b3",
    "period": "month",
    "unit": "usd",
    "limit": "100.00",
    "action": "refuse",
    "spent": "41.7301",
    "reserved": "2.50",
    "remaining": "55.7699",
    "resets_at": "2026-12-01T00:00:00Z",
    "version": 1,
    "created_at": MORNING,
    "updated_at": MORNING,
}
_TOKENS: dict[str, Any] = {
    "input_tokens": 7_221,
    "output_tokens": 173,
    "cache_read_tokens": 2_400,
    "cache_write_tokens": 0,
}
_ATTEMPT: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-5",
    "reason": None,
    "usage": _TOKENS,
    "cost_usd": "0.0116",
    "estimated": False,
    "price": {"source": "operator", "version": "2026-11-01", "digest": DIGEST},
    "seconds": 2.104,
}
_CALL: dict[str, Any] = {
    "effect_id": "01999c0b-9e2d-7a11-8c3f-5b6d7e8f9a0b",
    "step": 2,
    "started_at": MORNING,
    "attempts": [_ATTEMPT],
    "switches": [
        {"at": MORNING, "from_model": "local/qwen3-coder", "to_model": "openai/gpt-5", "reason": "circuit_open"}
    ],
    "end": {
        "ended_at": LATER,
        "outcome": "done",
        "claim": 1,
        "model": "openai/gpt-5",
        "response_model": "gpt-5-2025-08-07",
        "finish_reason": "tool_calls",
        "error_reason": None,
        "request_digest": DIGEST,
        "reply_digest": DIGEST,
        "recorded": True,
        "cached": False,
        "usage": _TOKENS,
        "cost_usd": "0.0116",
        "first_token_seconds": 0.81,
        "duration_seconds": 2.131,
    },
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "UsagePage": {
        "from": "2026-11-01",
        "to": "2026-11-23",
        "group_by": ["day"],
        "items": [{**_ITEM, "day": "2026-11-23"}],
        "totals": _FIGURES,
        "next_cursor": None,
    },
    "RunUsageModel": {
        "run_id": RUN_ID,
        "settled": True,
        "items": [{**_ITEM, "model": "openai/gpt-5"}],
        "totals": _FIGURES,
    },
    "CallPage": {"items": [_CALL], "next_cursor": None},
    "BudgetBody": {
        "name": "nightly builds",
        "scope": "principal",
        "scope_id": "sva_01k5h3v9q7e6t8w2x4y6z8a0b3",
        "period": "month",
        "unit": "usd",
        "limit": "100.00",
        "action": "refuse",
    },
    "BudgetPatch": {"limit": "150.00"},
    "BudgetModel": _BUDGET,
    "BudgetPage": {"items": [_BUDGET], "next_cursor": None},
}
