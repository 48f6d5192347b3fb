"""A request for a key says the same in whatever order, and on whichever edge, it is read."""

from __future__ import annotations

import orjson

from codeagent.edge.key_models import KeyBody

SCOPES = [
    "agents:read",
    "agents:write",
    "approvals:write",
    "keys:write",
    "projects:read",
    "projects:write",
    "runs:cancel",
    "runs:read",
    "runs:write",
    "usage:read",
    "webhooks:write",
]
# Written down, since the order of a set differs from one process to the next.
FINGERPRINT = "12e44d5cf06744aa55712afc6b1800c97a1df9375fae86973cd052ac53189fbf"


def test_a_fingerprint_is_that_of_what_is_said() -> None:
    for order in (SCOPES, SCOPES[::-1]):
        body = KeyBody.model_validate_json(orjson.dumps({"name": "CI", "scopes": order}))
        assert body.fingerprint() == FINGERPRINT
