"""Where checkpoints are kept out of the database's reach."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from codeagent.telemetry.logs import get_logger
from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import NoteRejected
from codeagent.transparency.tables import StoredCheckpoint

log = get_logger(__name__)


class Anchor(Protocol):
    """A place that checkpoints are added to and that none is taken from. `target` is what metrics call it."""

    target: str

    async def newest(self, keys: LogKeys) -> Checkpoint | None:
        """The longest checkpoint that is kept there and that the keys vouch for; what else lies there is named and
        passed by. Raises `Unavailable` where nobody can tell."""

    async def keep(self, checkpoint: StoredCheckpoint) -> None:
        """Returns once the note is kept as it is, or committed to be. One that is there already stays as it is. Raises
        `Unavailable`."""

    async def delay_seconds(self) -> float:
        """For how long the oldest one that is committed to be kept has not been; 0 where there is none."""


def longest(notes: Iterable[tuple[str, str]], keys: LogKeys) -> Checkpoint | None:
    """Of notes with their names, as an anchor has them."""
    found: Checkpoint | None = None
    for name, note in notes:
        try:
            opened = open_checkpoint(note, keys.origin, keys.verifying)
        except NoteRejected as error:
            log.error("anchor.unreadable", name=name, reason=error.detail)
            continue
        if found is None or opened.size > found.size:
            found = opened
    return found
