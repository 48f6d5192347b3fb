"""A dead letter: a record as it came, sealed, and what may be shown of it."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import orjson

from codeagent.messages.envelope import Headers
from codeagent.messages.ids import parse_typed_id

PREFIX = "dlq"
KEPT_FOR = timedelta(days=30)
"""As long as the dead-letter topics keep their records."""
MOST_HEADERS, MOST_TENANT, MOST_TEXT = 50, 100, 500
"""How many headers are shown, and how much of a name and of any other text."""
_OURS = re.compile(r"ce_[a-z]{1,20}|traceparent|content-type")
_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,100}")
SYSTEM, RUN = "system", "run"
"""Types of authors that are no persons. What a run has ordered is of whoever that run belongs to."""


class LetterState(StrEnum):
    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Header:
    """`size` in bytes. `value` is None for headers that are none of ours: what is in them is read with the record
    alone."""

    name: str
    size: int
    value: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that `consumer_group` could not handle, without its content.

    `partition` and `offset` are where it was in its topic, `dlq_partition` and `dlq_offset` where it is among the dead
    letters. `message_type`, `tenant_id` and `run_id` are what its headers say, which may be anything. `kept` tells
    whether its bytes are there. `settled_at` and `settled_by` are of the last act; `redrives` counts those that sent it
    again.
    """

    id: str
    version: int
    state: LetterState
    topic: str
    consumer_group: str
    partition: int | None
    offset: int | None
    dlq_partition: int
    dlq_offset: int
    key: str
    message_type: str | None
    tenant_id: str | None
    run_id: str | None
    headers: Sequence[Header]
    headers_omitted: int
    value_bytes: int
    kept: bool
    error_type: str
    error_message: str
    attempts: int | None
    failed_at: datetime
    received_at: datetime
    redrives: int
    settled_at: datetime | None
    settled_by: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Content:
    """A record's own bytes."""

    key: bytes
    headers: Headers
    value: bytes

    def packed(self) -> bytes:
        """As it is sealed."""
        return orjson.dumps([_text(self.key), self.packed_headers(), _text(self.value)])

    def packed_headers(self) -> list[tuple[str, str]]:
        """Names as well: there are some that no database takes for text."""
        return [(_text(name.encode()), _text(value)) for name, value in self.headers]

    @classmethod
    def unpacked(cls, packed: bytes) -> Content:
        key, headers, value = orjson.loads(packed)
        return cls(
            b64decode(key), [(b64decode(name).decode(), b64decode(said)) for name, said in headers], b64decode(value)
        )


def place_of(letter_id: str) -> str:
    """What a sealed record is bound to, as `SEALED_COLUMNS` has it."""
    return f"dead_letters/{letter_id}"


def shown_headers(headers: Headers) -> list[Header]:
    """The first of them, as they can be shown to anybody who may know that there is such a record."""
    return [
        Header(plain(name.encode(), MOST_TENANT), len(value), plain(value) if _OURS.fullmatch(name) else None)
        for name, value in headers[:MOST_HEADERS]
    ]


def plain(text: bytes, most: int = MOST_TEXT) -> str:
    """Text that no terminal, database or page takes for anything else: one line, cut where it is too long."""
    read = text[: most * 4].decode(errors="replace")
    cut = f"{read[: most - 1]}…" if len(read) > most or len(text) > most * 4 else read
    return "".join(character if character.isprintable() else "\ufffd" for character in cut)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a record says of itself, each None where it is nothing that one of ours could be. `author_id` is who has
    written it, a run where `author_type` says so, and None where that was a part of the system."""

    message_type: str | None
    tenant_id: str | None
    run_id: str | None
    author_type: str | None
    author_id: str | None


def claims(key: bytes, headers: Headers) -> Claims:
    said = {name: plain(value) for name, value in headers if _OURS.fullmatch(name)}
    tenant, run = said.get("ce_tenantid", ""), said.get("ce_partitionkey", plain(key))
    author, author_type = said.get("ce_authid", ""), said.get("ce_authtype")
    return Claims(
        message_type=said.get("ce_type"),
        tenant_id=tenant if _TENANT.fullmatch(tenant) else None,
        run_id=run if parse_typed_id("run", run) is not None else None,
        author_type=author_type,
        author_id=author if author and author_type != SYSTEM else None,
    )


def _text(value: bytes) -> str:
    return b64encode(value).decode()
