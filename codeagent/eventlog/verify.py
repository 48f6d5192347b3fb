"""Checks events against their own hashes: a changed byte, a missing version or a moved event is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from codeagent.errors import Unreadable
from codeagent.eventlog.hashing import digest_of
from codeagent.eventlog.stored import StoredEvent, leaf_of, stored_digest


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
        findings.extend(Finding(event.stream_id, event.version, event.id, told) for _, told in problems_of(event))
    return findings


class Problem(StrEnum):
    """What can be seen to be wrong with an event by itself."""

    DATA_CHANGED = "data_changed"
    ATTRIBUTES_CHANGED = "attributes_changed"
    UNREADABLE = "event_unreadable"


def problems_of(event: StoredEvent) -> Iterator[tuple[Problem, str]]:
    """Each problem, and what to say of it. Sealed content may be gone, since it was erased, and need not be opened."""
    if stored_digest(event) != event.data_digest:
        yield Problem.DATA_CHANGED, "the stored data does not match its digest"
    if event.sealed is not None and digest_of(event.sealed) != event.sealed_digest:
        yield Problem.DATA_CHANGED, "the sealed content does not match its digest"
    if leaf_of(event) != event.leaf_hash:
        yield Problem.ATTRIBUTES_CHANGED, "the stored attributes do not match the leaf hash"
    try:
        replace(event, data=event.kept, event=None, unopened=False, locked="").decode()
    except Unreadable as error:
        yield Problem.UNREADABLE, f"not readable: {error.detail}"
