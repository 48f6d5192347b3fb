"""What operators do with a dead letter: the stream `dead_letter-<id>`, which no tenant sees."""

from __future__ import annotations

from typing import Annotated, ClassVar

from codeagent.messages.envelope import Event
from codeagent.messages.personal import OfTenant


class DeadLetterEvent(Event):
    """Base of them. `topic`, `partition` and `offset` are those of the dead-letter topic's record."""

    letter_id: str
    topic: str
    partition: int
    offset: int


class DeadLetterRead(DeadLetterEvent):
    """Somebody has looked at what the record holds."""

    NAME: ClassVar[str] = "dead_letter.read"


class DeadLetterRedriven(DeadLetterEvent):
    """The record goes to the topic that it had failed on, for the `redrives`th time."""

    NAME: ClassVar[str] = "dead_letter.redriven"

    redrives: int


class DeadLetterDiscarded(DeadLetterEvent):
    """Nobody will handle the record, and the installation has forgotten what was in it."""

    NAME: ClassVar[str] = "dead_letter.discarded"

    reason: Annotated[str, OfTenant("telling why", "what the operator wrote")]
