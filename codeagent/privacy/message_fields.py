"""Where facts hold what persons have written, as the messages themselves declare it: each field, with what it is for
and how long it stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codeagent.messages.catalog import CONTROL_EVENTS, EFFECT_EVENTS, RUN_EVENTS
from codeagent.messages.personal import Personal, marks
from codeagent.privacy.personal_data import AS_LONG_AS_THE_LOG

UNTIL_ERASED = f"{AS_LONG_AS_THE_LOG}, or until its subject is erased"


@dataclass(frozen=True, slots=True)
class MessageField:
    """A field of a fact that may hold what a person has written. One that is not sealed is its tenant's."""

    message: str
    field: str
    purpose: str
    category: str
    retention: str
    is_sealed: bool


def _declared() -> Iterator[MessageField]:
    for event in (*RUN_EVENTS, *EFFECT_EVENTS, *CONTROL_EVENTS):
        for path, mark in marks(event).items():
            sealed = isinstance(mark, Personal)
            retention = UNTIL_ERASED if sealed else AS_LONG_AS_THE_LOG
            yield MessageField(event.NAME, path, mark.purpose, mark.category, retention, sealed)


MESSAGE_FIELDS: tuple[MessageField, ...] = tuple(_declared())
