"""Examples about webhooks and their deliveries."""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples.names import CURSOR, LATER, MORNING, WEBHOOK_ID
from codeagent.edge.examples.runs import EVENT

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
    "event_id": EVENT["id"],
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
    "WebhookBody": {name: _WEBHOOK[name] for name in ("url", "event_types", "description")},
    "WebhookPatch": {"status": "enabled"},
    "RotateSecretBody": {"overlap_seconds": 3_600},
    "WebhookModel": _WEBHOOK,
    "ShownWebhookModel": {**_WEBHOOK, "secret": "whsec_MfKQ..."},
    "WebhookPage": {"items": [_WEBHOOK], "next_cursor": CURSOR},
    "DeliveryModel": _DELIVERY,
    "DeliveryDetailModel": {**_DELIVERY, "log": [_ATTEMPT]},
    "DeliveryPage": {"items": [_DELIVERY], "next_cursor": CURSOR},
}
