"""Where checkpoints are kept out of the database's reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from codeagent.telemetry import metrics
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
        """The longest checkpoint after the newest restore that is kept there and that the keys vouch for; what else
        lies there is named and passed by. Raises `Unavailable` where nobody can tell."""

    async def keep(self, checkpoint: StoredCheckpoint) -> None:
        """Returns once the note is kept as it is, or committed to be. One that is there already stays as it is. Raises
        `Unavailable`."""

    async def delay_seconds(self) -> float:
        """For how long the oldest one that is committed to be kept has not been; 0 where there is none."""


_NAMED = 10
"""Of what vouches for nothing, in one look; the others are counted, so that a flood of it floods no log."""


@dataclass(slots=True)
class Look:
    """One look at what an anchor keeps: the `longest` checkpoint, after the most restores, that the keys vouch for, how
    many they do, and how much else there is."""

    target: str
    keys: LogKeys
    longest: Checkpoint | None = None
    sound: int = 0
    junk: int = 0

    def take(self, name: str, note: str) -> Checkpoint | None:
        """None for what is passed by. Of checkpoints of one size the last that is taken stays: who looks from the end
        back has the one that was there first."""
        try:
            opened = open_checkpoint(note, self.keys.origin, self.keys.verifying)
        except NoteRejected as error:
            self.pass_by(name, error.detail)
            return None
        self.sound += 1
        if self.longest is None or opened.order >= self.longest.order:
            self.longest = opened
        return opened

    def pass_by(self, name: str, reason: str) -> None:
        self.junk += 1
        if self.junk <= _NAMED:
            log.error("anchor.unreadable", target=self.target, name=name, reason=reason)

    def end(self) -> Checkpoint | None:
        """The longest, once how much was passed by is told."""
        metrics.AUDIT_JUNK.labels(self.target).set(self.junk)
        if self.junk > _NAMED:
            log.error("anchor.unreadable_more", target=self.target, count=self.junk - _NAMED)
        return self.longest
