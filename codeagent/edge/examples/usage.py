"""Examples about usage and budgets, by the names of their schemas."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import MORNING, RUN_ID

_FIGURES: dict[str, Any] = {
    "calls": 5,
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
