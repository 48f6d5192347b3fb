"""Examples of what the audit and the privacy routes take and answer with."""

from __future__ import annotations

from typing import Any

import orjson

from codeagent.edge.examples.names import KEY_ID, LATER, MORNING, RUN_ID

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

AUDIT_EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "01935f6e-8c4b-7d2a-9c1e-3f5a7b9d1e21",
    "source": f"/tenants/ten_1/streams/api_key-{KEY_ID}",
    "type": "io.codeagent.api_key.revoked.v1",
    "time": "2026-11-23T09:30:00.120Z",
    "sequence": "00000000000000000002",
    "datacontenttype": "application/json",
    "authtype": "app_user",
    "authid": "usr_1",
    "outcome": "success",
    "resourcekind": "api_key",
    "resourceid": KEY_ID,
    "clientaddress": "192.0.2.7",
    "data": {"key_id": KEY_ID},
}
_EXPORT_ENDED: dict[str, Any] = {
    "specversion": "1.0",
    "id": "01935f6e-8c4b-7d2a-9c1e-3f5a7b9d1e22",
    "source": "/tenants/ten_1/audit",
    "type": "io.codeagent.audit.export.ended.v1",
    "time": LATER,
    "datacontenttype": "application/json",
    "data": {
        "count": 1,
        "sha256": SHA256,
        "filter": {"until": LATER},
    },
}
_PRIVACY: dict[str, Any] = {
    "id": "prv_01k5h3v9q7e6t8w2x4y6z8a0b5",
    "kind": "access",
    "subject": "usr_1",
    "note": "By letter.",
    "status": "received",
    "overdue": False,
    "reason": "",
    "extension": "",
    "result": {},
    "version": 1,
    "created_by": "usr_2",
    "created_at": MORNING,
    "due_at": "2026-12-23T09:30:00Z",
    "ended_at": None,
}
_BREACH: dict[str, Any] = {
    "id": "brc_01k5h3v9q7e6t8w2x4y6z8a0b6",
    "summary": "A laptop with an API key was stolen.",
    "measures": "The key was revoked.",
    "categories": ["tasks of developers"],
    "subjects_affected": 3,
    "discovered_at": MORNING,
    "notify_by": "2026-11-26T09:30:00Z",
    "overdue": False,
    "authority_notified_at": None,
    "subjects_notified_at": None,
    "closed_at": None,
    "version": 1,
    "created_by": "usr_2",
    "created_at": LATER,
}
_HOLD = {"subject": "usr_1", "created_by": "usr_2", "created_at": LATER}
_BREACH_BODY = {
    name: _BREACH[name] for name in ("summary", "measures", "categories", "subjects_affected", "discovered_at")
}
SUBJECT_DATA: dict[str, Any] = {
    "format": "codeagent-subject-data/1",
    "request_id": _PRIVACY["id"],
    "subject_id": "usr_1",
    "made_at": LATER,
    "held": [{"where": "users", "purpose": "letting users in", "retention": "as long as the account"}],
    "user": {"id": "usr_1", "role": "developer", "email": "ada@example.org", "created_at": MORNING},
    "sessions": [],
    "api_keys": [],
    "service_accounts": [],
    "conversations": [],
    "usage": [],
    "budgets": [],
    "privacy_requests": [],
    "runs": [],
    "written_elsewhere": [],
    "audit": [],
}
AUDIT_EXPORT = f"{orjson.dumps(AUDIT_EVENT).decode()}\n{orjson.dumps(_EXPORT_ENDED).decode()}\n"

EXAMPLES: dict[str, dict[str, Any]] = {
    "AuditPage": {"items": [AUDIT_EVENT], "next_cursor": None},
    "VerificationModel": {
        "stream_id": f"run-{RUN_ID}",
        "verified": True,
        "complete": True,
        "events": 37,
        "findings": [],
    },
    "ConsistencyModel": {"from": 1, "to": 2, "hashes": ["ERYz4DGPlMVdDsJHkMWvaQ6ml1gxQgXJQGmH7Dn/dEE="]},
    "PrivacyBody": {"kind": "access", "subject": "usr_1", "note": "By letter."},
    "PrivacyPatch": {"status": "in_progress"},
    "PrivacyModel": _PRIVACY,
    "PrivacyPage": {"items": [_PRIVACY], "next_cursor": None},
    "RecordsModel": {
        "activities": [
            {
                "where": "passwords",
                "purpose": "letting users in",
                "categories": ["password hash"],
                "retention": "until another is chosen",
                "on_erasure": "removed",
            }
        ],
        "message_fields": [],
    },
    "HoldModel": _HOLD,
    "HoldPage": {"items": [_HOLD], "next_cursor": None},
    "BreachBody": _BREACH_BODY,
    "BreachPatch": {"authority_notified_at": LATER},
    "BreachModel": _BREACH,
    "BreachPage": {"items": [_BREACH], "next_cursor": None},
}

CHECKPOINT = (
    "audit.example.com\n"
    "2\n"
    "ogv5p8wtyKCPX0FacbGfasQnurVNJO7IaLXTEDRJlTo=\n"
    "\n"
    "— audit.example.com 3ncgNYcjAudf8BhEoEZtGxm/2ubiZDxErTEXusjZwfbN3CWeiLQbG9hXIWOB5bimV35Z2K4gnsOHXVvkW4ybsjm/twE=\n"
)
"""A signed checkpoint of two entries."""
LOG_PROOF = (
    "c2sp.org/tlog-proof@v1\n"
    "index 1\n"
    "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=\n"
    "\n"
    "audit.example.com\n"
    "2\n"
    "ogv5p8wtyKCPX0FacbGfasQnurVNJO7IaLXTEDRJlTo=\n"
    "\n"
    "— audit.example.com 3ncgNYcjAudf8BhEoEZtGxm/2ubiZDxErTEXusjZwfbN3CWeiLQbG9hXIWOB5bimV35Z2K4gnsOHXVvkW4ybsjm/twE=\n"
)
"""That the second of them is in it."""
VERIFIER_KEY = "audit.example.com+de772035+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop\n"
ERASURE_CERTIFICATE = (
    'codeagent.io/erasure/v1\n{"completed_at":"2026-11-27T12:00:41.000000Z","subject_id":"usr_0k7x3n9q2vd8m5c1"}\n\n'
    "— log.example.com/codeagent 1Xv5Wg2T...\n"
)
