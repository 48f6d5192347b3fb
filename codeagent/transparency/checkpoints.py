"""Checkpoints (c2sp.org/tlog-checkpoint): which log, how long it is and its root, to be signed as a note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.transparency.notes import NoteRejected, SigningKey, VerifierKey, decoded, encoded, open_note, sign_note
from codeagent.transparency.tree import HASH_BYTES


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log called `origin` had `size` entries and this root."""

    origin: str
    size: int
    root: bytes

    def signed(self, keys: Sequence[SigningKey]) -> str:
        return sign_note(f"{self.origin}\n{self.size}\n{encoded(self.root)}\n", keys)


def open_checkpoint(note: str, origin: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Reads a signed checkpoint of the log `origin`. Raises `NoteRejected`. Lines after the first three are somebody's
    extension and not looked at."""
    lines = open_note(note, keys).split("\n")
    try:
        named, size, root = lines[0], lines[1], decoded(lines[2])
    except (IndexError, ValueError):
        raise NoteRejected("a signed note that is no checkpoint") from None
    if not (size.isascii() and size.isdecimal()) or size != str(int(size)) or len(root) != HASH_BYTES:
        raise NoteRejected("a checkpoint whose size or root is none")
    if named != origin:
        raise NoteRejected(f"a checkpoint of another log, {named[:100]!r}", code="note_other_log")
    return Checkpoint(named, int(size), root)
