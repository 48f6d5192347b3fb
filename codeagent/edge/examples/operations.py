"""Examples about health, schemas and problems."""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, dict[str, Any]] = {
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
