"""Records of dead-letter topics: what is said of a failure beside the record itself, and how it is read again.

What a record says was written by whoever could write to the topic it failed on. What is said of its failure stands
behind all of that, and which topic and group it failed in is taken from the name of the dead-letter topic alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from codeagent.broker.topics import TopicDefinition, dead_letter_topic
from codeagent.messages.envelope import Headers

_FIRST = "dlq-topic"
_MOST_ERROR = 500
_LARGEST = 2**63 - 1


def failure_headers(record: ConsumerRecord, group: str, error: Exception, attempts: int) -> Headers:
    """What is said of a record that could not be handled, to stand behind its own headers."""
    return [
        (_FIRST, record.topic.encode()),
        ("dlq-partition", str(record.partition).encode()),
        ("dlq-offset", str(record.offset).encode()),
        ("dlq-timestamp", str(record.timestamp).encode()),
        ("dlq-group", group.encode()),
        ("dlq-error-type", error_type(error).encode()),
        ("dlq-error-message", str(getattr(error, "detail", ""))[:_MOST_ERROR].encode()),
        ("dlq-attempts", str(attempts).encode()),
    ]


def error_type(error: Exception) -> str:
    """The stable code of an error of ours, the class of a bug."""
    return str(getattr(error, "code", type(error).__name__))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the records of a dead-letter topic have failed."""

    topic: str
    group: str


def origins(definitions: Iterable[TopicDefinition]) -> dict[str, Origin]:
    """Of every dead-letter topic there is."""
    return {
        dead_letter_topic(each.name, reader): Origin(each.name, reader)
        for each in definitions
        if each.dead_letters
        for reader in each.readers
    }


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record as it was, and what is known of its failure. `dlq_partition`, `dlq_offset` and `failed_ms` (since 1970,
    UTC) are its place among the dead letters; `partition` and `offset`, where it failed, are None where nothing tells
    them, as `attempts` is."""

    origin: Origin
    dlq_partition: int
    dlq_offset: int
    failed_ms: int
    key: bytes
    headers: Headers
    value: bytes
    partition: int | None
    offset: int | None
    error_type: bytes
    error_message: bytes
    attempts: int | None


def read_failed(record: ConsumerRecord, origin: Origin) -> FailedRecord:
    """Takes a record of a dead-letter topic apart. Nothing that stands in it raises."""
    headers: Headers = [(name, value or b"") for name, value in record.headers or ()]
    names = [name for name, _ in headers]
    ours = len(names) - 1 - names[::-1].index(_FIRST) if _FIRST in names else len(names)
    said = dict(headers[ours:])
    return FailedRecord(
        origin=origin,
        dlq_partition=record.partition,
        dlq_offset=record.offset,
        failed_ms=record.timestamp,
        key=record.key or b"",
        headers=headers[:ours],
        value=record.value or b"",
        partition=_number(said.get("dlq-partition")),
        offset=_number(said.get("dlq-offset")),
        error_type=said.get("dlq-error-type", b""),
        error_message=said.get("dlq-error-message", b""),
        attempts=_number(said.get("dlq-attempts")),
    )


def _number(text: bytes | None) -> int | None:
    if text is None or not text.isdigit() or len(text) > len(str(_LARGEST)):
        return None
    return min(int(text), _LARGEST)
