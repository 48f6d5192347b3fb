"""What receivers are sent: thin, the same at every attempt, never larger than it may be."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat

from codeagent.eventlog.stored import StoredEvent, prepare
from codeagent.messages import events
from codeagent.messages.conversation import FinishReason, Usage
from codeagent.messages.envelope import Event
from codeagent.messages.webhook_events import WebhookTested
from codeagent.webhooks.filters import is_pattern, wants
from codeagent.webhooks.payload import MOST_BYTES, Erased, PayloadFormat, body_of

EVENT_ID = UUID("019ab3f2-6c1e-7d52-9a33-6f0a4c2d9e10")
BOTH = pytest.mark.parametrize("form", list(PayloadFormat))


def stored(event: Event, stream: str = "run-run_1", **metadata: str) -> StoredEvent:
    return prepare(
        event,
        stream_id=stream,
        version=3,
        event_id=EVENT_ID,
        tenant_id="ten_1",
        occurred_at=datetime(2026, 11, 23, 1, 40, 12, 345678, UTC),
        metadata={"correlationid": str(UUID(int=1)), **metadata},
    )


def message(text: str) -> StoredEvent:
    said = events.MessageCompleted(
        effect_id=UUID(int=2),
        step=1,
        attempt=1,
        text=text,
        finish_reason=FinishReason.STOP,
        model="test/model",
        usage=Usage(),
    )
    return stored(said, runid="run_1")


def test_the_standard_body_says_what_when_and_where_to_read_on() -> None:
    assert json.loads(body_of(stored(events.RunStarted(), runid="run_1"), PayloadFormat.STANDARD)) == {
        "type": "run.started",
        "timestamp": "2026-11-23T01:40:12.345678Z",
        "data": {
            "run_id": "run_1",
            "sequence": 3,
            "href": "/v1/runs/run_1/events?after=2&limit=1",
            "event": {"attempt": 1},
        },
    }


def test_the_other_format_is_a_cloudevent() -> None:
    body = body_of(stored(events.RunStarted(), runid="run_1"), PayloadFormat.CLOUDEVENTS)
    headers = {"content-type": PayloadFormat.CLOUDEVENTS.media_type}
    event = from_structured(HTTPMessage(headers=headers, body=body), JSONFormat())
    assert (event.get_id(), event.get_type(), event.get_data()) == (
        str(EVENT_ID),
        "io.codeagent.run.started.v1",
        {"attempt": 1},
    )


@BOTH
def test_what_is_too_large_is_left_to_be_read(form: PayloadFormat) -> None:
    body = body_of(message("é" * MOST_BYTES), form)
    document = json.loads(body)
    assert len(body) < 1_500
    if form is PayloadFormat.STANDARD:
        assert (document["data"]["event"], document["data"]["truncated"]) == (None, True)
        assert document["data"]["href"] == "/v1/runs/run_1/events?after=2&limit=1"
    else:
        assert (document["data"], document["dataref"]) == ({}, "/v1/runs/run_1/events?after=2&limit=1")


@BOTH
def test_what_just_fits_is_sent_whole(form: PayloadFormat) -> None:
    spare = MOST_BYTES - len(body_of(message(""), form))
    assert len(body_of(message("x" * spare), form)) == MOST_BYTES
    assert len(body_of(message("x" * (spare + 1)), form)) < 1_500


@BOTH
def test_a_body_is_the_same_every_time(form: PayloadFormat) -> None:
    assert body_of(message("hello"), form) == body_of(message("hello"), form)


@BOTH
def test_an_erased_event_is_not_told(form: PayloadFormat) -> None:
    with pytest.raises(Erased):
        body_of(replace(message("x"), data=b""), form)


def test_a_test_message_belongs_to_no_run() -> None:
    body = body_of(stored(WebhookTested(webhook_id="whk_1"), "webhook-whk_1"), PayloadFormat.STANDARD)
    document = json.loads(body)
    assert (document["type"], document["data"]) == ("webhook.tested", {"event": {"webhook_id": "whk_1"}})


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "run.completed", True),
        ("run.*", "run.step.started", True),
        ("run.step.*", "run.started", False),
        ("run.completed", "run.completed", True),
        ("run.completed", "run.failed", False),
        ("run.input_required", "run.input_required", True),
        ("budget.*", "budget.threshold_reached", True),
        ("run.*", "budget.threshold_reached", False),
        ("*", "budget.created", False),
        ("*", "provider.call.ended", False),
        ("*", "webhook.tested", False),
        ("ru*", "run.completed", False),
    ],
)
def test_filters_match_names_and_families_of_public_events(pattern: str, name: str, matches: bool) -> None:
    assert wants([pattern], name) is matches


@pytest.mark.parametrize(
    "pattern", ["", "run", "run.", "runs.*", "*.*", "run.complete", "provider.call.ended", "budget.created", "RUN.*"]
)
def test_a_pattern_that_matches_nothing_is_none(pattern: str) -> None:
    assert not is_pattern(pattern)
