"""The envelope every message travels in: CloudEvents 1.0, binary mode on Kafka, structured JSON everywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from pydantic import ConfigDict

from codeagent.errors import Unreadable
from codeagent.messages.conversation import Data

TYPE_PREFIX = "io.codeagent."
SCHEMA_BASE = "https://schemas.codeagent.io/"
Headers = list[tuple[str, bytes]]


class Payload(Data):
    """Base of every message's data. `NAME` and `VERSION` are its identity in the catalogue, for ever."""

    NAME: ClassVar[str]
    VERSION: ClassVar[int] = 1


class Command(Payload):
    """An order, named in the imperative. Unknown fields are refused: half understood is not understood."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(Payload):
    """A fact, named in the past tense. Unknown fields are ignored: yesterday's reader meets tomorrow's writer."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who says it, about what, because of what. `sequence` is the stream's version, on events only."""

    id: UUID
    name: str
    version: int
    source: str
    time: datetime
    tenant_id: str
    key: str
    correlation_id: UUID
    causation_id: UUID | None = None
    subject: str | None = None
    sequence: int | None = None
    actor_type: str = "system"
    actor_id: str = "system"
    traceparent: str | None = None
    expires_at: datetime | None = None
    leaf_hash: str | None = None

    @property
    def type(self) -> str:
        return f"{TYPE_PREFIX}{self.name}.v{self.version}"

    @property
    def schema_url(self) -> str:
        return f"{SCHEMA_BASE}{self.name}.v{self.version}.json"


@dataclass(frozen=True, slots=True)
class Message:
    """An envelope and its decoded data."""

    envelope: Envelope
    data: Payload


def instant(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds and `Z`. `value` is aware and in UTC."""
    return f"{value.isoformat(timespec='microseconds')[:26]}Z"


def parse_instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def split_type(text: str) -> tuple[str, int]:
    """`io.codeagent.run.submit.v1` is ("run.submit", 1). Raises `Unreadable` for anything else."""
    name, dot, version = text.removeprefix(TYPE_PREFIX).rpartition(".v")
    if not text.startswith(TYPE_PREFIX) or not dot or not version.isdecimal():
        raise Unreadable(f"not a CodeAgent message type: {text[:100]!r}", code="unknown_type")
    return name, int(version)


def _attributes(envelope: Envelope) -> Iterable[tuple[str, str | None]]:
    yield "id", str(envelope.id)
    yield "source", envelope.source
    yield "type", envelope.type
    yield "subject", envelope.subject
    yield "time", instant(envelope.time)
    yield "dataschema", envelope.schema_url
    yield "partitionkey", envelope.key
    yield "sequence", None if envelope.sequence is None else f"{envelope.sequence:020d}"
    yield "correlationid", str(envelope.correlation_id)
    yield "causationid", None if envelope.causation_id is None else str(envelope.causation_id)
    yield "authtype", envelope.actor_type
    yield "authid", envelope.actor_id
    yield "expirytime", None if envelope.expires_at is None else instant(envelope.expires_at)
    yield "tenantid", envelope.tenant_id
    yield "leafhash", envelope.leaf_hash


def to_headers(envelope: Envelope, content_type: str = "application/json") -> Headers:
    """The Kafka record headers of the binary mode, `traceparent` of this hop included."""
    headers: Headers = [("content-type", content_type.encode()), ("ce_specversion", b"1.0")]
    headers += [(f"ce_{name}", value.encode()) for name, value in _attributes(envelope) if value is not None]
    if envelope.traceparent is not None:
        headers.append(("traceparent", envelope.traceparent.encode()))
    return headers


def from_headers(headers: Iterable[tuple[str, bytes]]) -> Envelope:
    """Reads what `to_headers` wrote. Raises `Unreadable` when an attribute is missing or malformed."""
    try:
        found = {
            name.removeprefix("ce_"): value.decode()
            for name, value in headers
            if name.startswith("ce_") or name == "traceparent"
        }
    except UnicodeDecodeError as error:
        raise _malformed(error) from error
    return _from_attributes(found)


def from_structured(document: Mapping[str, Any]) -> Envelope:
    """Reads the attributes of what `to_structured` wrote. Raises `Unreadable` as `from_headers` does."""
    return _from_attributes({name: value for name, value in document.items() if isinstance(value, str)})


def _from_attributes(found: Mapping[str, str]) -> Envelope:
    try:
        name, version = split_type(found["type"])
        sequence, expires = found.get("sequence"), found.get("expirytime")
        causation = found.get("causationid")
        return Envelope(
            id=UUID(found["id"]),
            name=name,
            version=version,
            source=found["source"],
            time=parse_instant(found["time"]),
            tenant_id=found["tenantid"],
            key=found["partitionkey"],
            correlation_id=UUID(found["correlationid"]),
            causation_id=None if causation is None else UUID(causation),
            subject=found.get("subject"),
            sequence=None if sequence is None else int(sequence),
            actor_type=found.get("authtype", "unknown"),
            actor_id=found.get("authid", "unknown"),
            traceparent=found.get("traceparent"),
            expires_at=None if expires is None else parse_instant(expires),
            leaf_hash=found.get("leafhash"),
        )
    except (KeyError, ValueError) as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> Unreadable:
    return Unreadable(f"malformed envelope: {type(error).__name__}", code="malformed_envelope")


def to_structured(envelope: Envelope, data: Mapping[str, Any]) -> dict[str, Any]:
    """The same event as one JSON object (`application/cloudevents+json`)."""
    event: dict[str, Any] = {"specversion": "1.0", "datacontenttype": "application/json"}
    event.update((name, value) for name, value in _attributes(envelope) if value is not None)
    event["data"] = data
    return event
