"""What a receiver is sent: what happened, where to read more, and the fact itself while it is small."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import orjson

from codeagent.errors import CodeAgentError
from codeagent.eventlog.stored import StoredEvent
from codeagent.messages.budget_events import BudgetThresholdReached
from codeagent.messages.envelope import instant, to_structured
from codeagent.messages.ids import budget_notice_stream

MOST_BYTES = 20_000


class PayloadFormat(StrEnum):
    """`standard` is the body that Standard Webhooks describes, `cloudevents` a CloudEvent in structured mode."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"

    @property
    def media_type(self) -> str:
        return "application/json" if self is PayloadFormat.STANDARD else "application/cloudevents+json"


class Erased(CodeAgentError):
    """The event's data has been erased: there is nothing to tell any more."""

    code = "erased"


def body_of(event: StoredEvent, form: PayloadFormat) -> bytes:
    """At most `MOST_BYTES`, and the same at every attempt. Raises `Erased`."""
    if not event.data:
        raise Erased("the event has been erased")
    make = _standard if form is PayloadFormat.STANDARD else _cloudevent
    body = orjson.dumps(make(event, event.document()))
    return body if len(body) <= MOST_BYTES else orjson.dumps(make(event, None))


def _standard(event: StoredEvent, document: Any) -> dict[str, Any]:
    data: dict[str, Any] = {**_place(event), "event": document}
    if document is None:
        data["truncated"] = True
    return {"type": event.type, "timestamp": instant(event.occurred_at), "data": data}


def _place(event: StoredEvent) -> dict[str, Any]:
    run_id = event.metadata.get("runid")
    if run_id is not None:
        href = f"/v1/runs/{run_id}/events?after={event.version - 1}&limit=1"
        return {"run_id": run_id, "sequence": event.version, "href": href}
    if event.type == BudgetThresholdReached.NAME:
        budget_id = event.stream_id.removeprefix(budget_notice_stream(""))
        return {"budget_id": budget_id, "href": f"/v1/budgets/{budget_id}"}
    return {}


def _cloudevent(event: StoredEvent, document: Any) -> dict[str, Any]:
    structured = to_structured(event.envelope(), document if document is not None else {})
    if document is None:
        structured["dataref"] = _place(event)["href"]
    return structured
