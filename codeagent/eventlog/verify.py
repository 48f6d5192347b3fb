"""Checks events against their own hashes: a changed byte, a missing version or a moved event is named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from codeagent.errors import Unreadable
from codeagent.eventlog.hashing import digest_of
from codeagent.eventlog.stored import StoredEvent, leaf_of


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with the event it is wrong with."""

    stream_id: str
    version: int
    event_id: UUID | None
    problem: str

    def __str__(self) -> str:
        event = f" (event {self.event_id})" if self.event_id is not None else ""
        return f"{self.stream_id} version {self.version}{event}: {self.problem}"


def verify(events: Iterable[StoredEvent]) -> list[Finding]:
    """What is wrong with these events, given in stream order or interleaved. An empty list means nothing was found."""
    findings: list[Finding] = []
    heads: dict[str, int] = {}
    for event in events:
        expected = heads.get(event.stream_id, 0) + 1
        if event.version != expected:
            findings.append(
                Finding(event.stream_id, expected, None, f"missing: the next event has version {event.version}")
            )
        heads[event.stream_id] = event.version
        findings.extend(Finding(event.stream_id, event.version, event.id, problem) for problem in _problems(event))
    return findings


def _problems(event: StoredEvent) -> Iterable[str]:
    if digest_of(event.data) != event.data_digest:
        yield "the stored data does not match its digest"
    if leaf_of(event) != event.leaf_hash:
        yield "the stored attributes do not match the leaf hash"
    try:
        event.decode()
    except Unreadable as error:
        yield f"not readable: {error.detail}"
