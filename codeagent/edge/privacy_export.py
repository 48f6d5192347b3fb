"""What a person gets who asks for their data: one JSON document, written piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from codeagent import clock
from codeagent.edge.models import RunModel
from codeagent.privacy.personal_data import HOLDINGS
from codeagent.privacy.requests import PrivacyRequest
from codeagent.privacy.subject_data import SubjectData
from codeagent.projections.audit_search import AuditEntry

FORMAT = "codeagent-subject-data/1"
SECTIONS = (
    "user",
    "sessions",
    "api_keys",
    "service_accounts",
    "conversations",
    "usage",
    "budgets",
    "privacy_requests",
    "runs",
    "audit",
)


async def document(data: SubjectData, tenant_id: str, request: PrivacyRequest) -> AsyncIterator[bytes]:
    """Memory stays the same however many runs there are. A document that was cut short is no JSON."""
    subject = request.subject_id
    head = {
        "format": FORMAT,
        "request_id": request.id,
        "subject_id": subject,
        "made_at": clock.now(),
        "held": [
            {"where": holding.table, "purpose": holding.purpose, "retention": holding.retention}
            for holding in HOLDINGS
            if holding.section is not None
        ],
        "user": await data.user(tenant_id, subject),
        "sessions": await data.sessions(tenant_id, subject),
        "api_keys": await data.api_keys(tenant_id, subject),
        "service_accounts": await data.service_accounts(tenant_id, subject),
        "conversations": await data.conversations(tenant_id, subject),
        "usage": await data.usage(tenant_id, subject),
        "budgets": await data.budgets(tenant_id, subject),
        "privacy_requests": await data.privacy_requests(tenant_id, subject),
    }
    yield orjson.dumps(head)[:-1]
    yield b',"runs":['
    first = True
    async for view in data.runs(tenant_id, subject):
        yield (b"" if first else b",") + RunModel.of(view).model_dump_json().encode()
        first = False
    yield b'],"audit":['
    first = True
    async for entry in data.audit(tenant_id, subject):
        yield (b"" if first else b",") + orjson.dumps(_line(entry, subject))
        first = False
    yield b"]}\n"


def _line(entry: AuditEntry, subject: str) -> dict[str, Any]:
    """An act of the subject's, or upon them. Who else took part, and from where, is that person's."""
    own = entry.event.metadata.get("authid") == subject
    of_others = entry.resource_kind == "user" and entry.resource_id != subject
    return {
        "id": str(entry.event.id),
        "time": entry.event.occurred_at,
        "action": entry.event.type,
        "outcome": entry.outcome.value,
        "by_subject": own,
        "address": entry.address if own else None,
        "resource_kind": entry.resource_kind,
        "resource_id": None if of_others else entry.resource_id,
    }
