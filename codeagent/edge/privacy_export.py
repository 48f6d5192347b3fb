"""What a person gets who asks for their data: one JSON document, written piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import orjson

from codeagent import clock
from codeagent.edge.models import RunModel
from codeagent.errors import Unreadable
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.events import RunSubmitted
from codeagent.privacy.personal_data import HOLDINGS
from codeagent.privacy.requests import PrivacyRequest
from codeagent.privacy.subject_data import SubjectData
from codeagent.projections.audit_search import AuditEntry

Item = TypeVar("Item")
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
    "written_elsewhere",
    "audit",
)


async def document(data: SubjectData, tenant_id: str, request: PrivacyRequest) -> AsyncIterator[bytes]:
    """Memory stays the same however many runs there are, and however long they are. A document that was cut short is no
    JSON. An event that cannot be read has `unreadable` in the place of what it says, and ends nothing."""
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
        yield (b"" if first else b",") + RunModel.of(view).model_dump_json().encode()[:-1] + b',"events":'
        async for piece in _listed(data.said_in(tenant_id, subject, view.run_id), _said):
            yield piece
        yield b"}"
        first = False
    yield b'],"written_elsewhere":'
    async for piece in _listed(data.written_elsewhere(tenant_id, subject), _said_elsewhere):
        yield piece
    yield b',"audit":'
    async for piece in _listed(data.audit(tenant_id, subject), lambda entry: _line(entry, subject)):
        yield piece
    yield b"}\n"


async def _listed(items: AsyncIterator[Item], shown: Callable[[Item], dict[str, Any]]) -> AsyncIterator[bytes]:
    before = b"["
    async for item in items:
        yield before + orjson.dumps(shown(item))
        before = b","
    yield b"[]" if before == b"[" else b"]"


def _said(stored: StoredEvent) -> dict[str, Any]:
    """What a fact says. Who else has acted in it is that person's, and so may be what was said before in a session,
    which is in the runs that it was said in."""
    try:
        data = stored.document()
        if stored.type == RunSubmitted.NAME:
            data.pop("history", None)
        said = {"time": stored.occurred_at, "type": stored.type, "data": data}
    except Unreadable as error:
        said = {"unreadable": error.code}
    except orjson.JSONDecodeError:
        said = {"unreadable": "corrupt_row"}
    return {"id": str(stored.id), **said}


def _said_elsewhere(stored: StoredEvent) -> dict[str, Any]:
    return {**_said(stored), "run_id": stored.metadata.get("runid")}


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
