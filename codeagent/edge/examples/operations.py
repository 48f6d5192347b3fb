"""Examples about health, schemas and problems."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import LATER, LETTER_ID, MORNING, RUN_ID

_LETTER: dict[str, Any] = {
    "id": LETTER_ID,
    "state": "open",
    "version": 1,
    "topic": "codeagent.run.commands.v1",
    "consumer_group": "agent-worker",
    "partition": 2,
    "offset": 4711,
    "key": RUN_ID,
    "message_type": "io.codeagent.run.submit.v1",
    "tenant_id": "ten_1",
    "run_id": RUN_ID,
    "headers": [{"name": "ce_type", "size": 26, "value": "io.codeagent.run.submit.v1"}],
    "headers_omitted": 0,
    "value_bytes": 512,
    "kept": True,
    "error_type": "unknown_version",
    "error_message": "run.submit version 2 is newer than this program",
    "attempts": 1,
    "failed_at": MORNING,
    "received_at": LATER,
    "redrives": 0,
    "settled_at": None,
    "settled_by": None,
    "reason": "",
    "content": None,
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "Liveness": {"status": "ok"},
    "Readiness": {"status": "ok", "checks": {"database": True, "broker": True}},
    "Version": {"version": "0.1.0"},
    "SchemaList": {"items": [{"name": "run.completed", "version": 1, "href": "/v1/schemas/run.completed/1"}]},
    "RedriveBody": {"again": False},
    "DiscardBody": {"reason": "A record of a load test."},
    "DeadLetterModel": _LETTER,
    "DeadLetterPage": {"items": [_LETTER], "next_cursor": None},
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
