"""Messages on the wire: CloudEvents that any CloudEvents reader understands, and nothing that cannot be read back."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from codeagent.errors import Unreadable
from codeagent.messages.catalog import CURRENT, decode, decode_data, encode_data
from codeagent.messages.commands import CancelRun
from codeagent.messages.envelope import Envelope, from_headers, split_type, to_headers, to_structured
from codeagent.messages.ids import derived_uuid, parse_typed_id, typed_id

ENVELOPE = Envelope(
    id=UUID(int=5),
    name="run.cancel",
    version=1,
    source="/tenants/ten_a/edge",
    time=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    tenant_id="ten_a",
    key="run_a",
    correlation_id=UUID(int=6),
    causation_id=UUID(int=7),
    sequence=42,
    actor_type="api_key",
    actor_id="usr_a",
    traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    expires_at=datetime(2026, 1, 2, tzinfo=UTC),
)


def test_an_envelope_survives_its_headers() -> None:
    assert from_headers(to_headers(ENVELOPE)) == ENVELOPE


def test_a_record_is_a_cloud_event_to_others() -> None:
    headers = dict(to_headers(ENVELOPE))
    value = encode_data(CancelRun(run_id="run_a"))
    record = KafkaMessage(headers=headers, key="run_a", value=value)
    event = from_binary(record, JSONFormat(), CloudEvent)
    assert event.get_id() == str(ENVELOPE.id)
    assert event.get_type() == "io.codeagent.run.cancel.v1"
    assert event.get_extension("sequence") == "00000000000000000042"
    assert event.get_data() == {"run_id": "run_a", "reason": ""}


def test_the_structured_form_says_the_same() -> None:
    event = to_structured(ENVELOPE, {"run_id": "run_a"})
    assert event["specversion"] == "1.0"
    assert event["type"] == "io.codeagent.run.cancel.v1"
    assert event["correlationid"] == str(UUID(int=6))
    assert event["time"] == "2026-01-02T03:04:05.000678Z"


@pytest.mark.parametrize("missing", ["ce_id", "ce_type", "ce_source", "ce_time", "ce_partitionkey", "ce_tenantid"])
def test_a_record_without_a_required_attribute_is_unreadable(missing: str) -> None:
    headers = [(name, value) for name, value in to_headers(ENVELOPE) if name != missing]
    with pytest.raises(Unreadable):
        from_headers(headers)


@pytest.mark.parametrize("text", ["", "run.cancel.v1", "io.codeagent.run.cancel", "io.codeagent.run.cancel.vx"])
def test_a_foreign_type_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        split_type(text)


@given(
    st.lists(st.tuples(st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_sequence", "x"]), st.binary(max_size=40)))
)
def test_no_headers_whatever_do_more_than_be_unreadable(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(Unreadable):
        decode(headers, b"{}")


@given(st.binary(max_size=200), st.sampled_from(sorted(CURRENT)))
def test_no_data_whatever_does_more_than_be_unreadable(value: bytes, name: str) -> None:
    with contextlib.suppress(Unreadable):
        decode_data(name, 1, value)


def test_a_version_from_the_future_is_unreadable() -> None:
    with pytest.raises(Unreadable) as refused:
        decode_data("run.started", 99, b"{}")
    assert refused.value.code == "unknown_version"


def test_a_command_with_an_unknown_field_is_refused_and_an_event_is_not() -> None:
    with pytest.raises(Unreadable):
        decode_data("run.cancel", 1, b'{"run_id": "run_a", "force": true}')
    assert decode_data("run.started", 1, b'{"attempt": 1, "new_field": true}').NAME == "run.started"


@given(st.uuids())
def test_a_typed_id_survives_its_own_text(value: UUID) -> None:
    text = typed_id("run", value)
    assert len(text) == 30
    assert parse_typed_id("run", text) == value
    assert parse_typed_id("ses", text) is None


@pytest.mark.parametrize("text", ["", "run_", "run_short", "run_" + "z" * 26, "run_" + "0" * 25 + "u"])
def test_what_is_no_id_is_no_id(text: str) -> None:
    assert parse_typed_id("run", text) is None


def test_derived_ids_do_not_run_together() -> None:
    assert derived_uuid("ab", "c") != derived_uuid("a", "bc")
    assert derived_uuid("a", "b") == derived_uuid("a", "b")


def test_the_golden_examples_cover_every_message() -> None:
    folder = Path(__file__).resolve().parents[3] / "schemas" / "examples"
    assert {path.stem.rsplit(".v", 1)[0] for path in folder.glob("*.json")} == set(CURRENT)
