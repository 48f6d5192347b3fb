"""Checkpoints (c2sp.org/tlog-checkpoint): which log, how long it is and its root, to be signed as a note; and which
restores it has gone on from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from codeagent.transparency.notes import NoteRejected, SigningKey, VerifierKey, decoded, encoded, open_note, sign_note
from codeagent.transparency.tree import HASH_BYTES

_CUT = re.compile(r"restored (0|[1-9]\d{0,18}) of ([1-9]\d{0,18}) (\S+)")
_ANY_CUT = "restored "


@dataclass(frozen=True, slots=True)
class Cut:
    """A restore, stated by whoever has the log's key: `signed` entries were signed, with this root, and the log goes on
    from the first `kept` of them. The others are given up."""

    kept: int
    signed: int
    root: bytes

    def __str__(self) -> str:
        return f"{_ANY_CUT}{self.kept} of {self.signed} {encoded(self.root)}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log called `origin` had `size` entries and this root, after the restores `cuts`, the oldest first. Each
    checkpoint after a restore tells of it, so that which story a checkpoint belongs to is signed with it."""

    origin: str
    size: int
    root: bytes
    cuts: tuple[Cut, ...] = ()

    @property
    def order(self) -> tuple[int, int]:
        """That of a later one is greater."""
        return len(self.cuts), self.size

    def signed(self, keys: Sequence[SigningKey]) -> str:
        lines = (self.origin, str(self.size), encoded(self.root), *map(str, self.cuts))
        return sign_note("".join(f"{line}\n" for line in lines), keys)

    def gives_up(self, earlier: Checkpoint) -> bool:
        """Whether `earlier` covers entries that a restore since has given up, as this one states. What was signed
        beyond what the statement knows of is not given up, and neither is anything of the log's own story."""
        since = self.cuts[len(earlier.cuts) :]
        if not since or self.cuts[: len(earlier.cuts)] != earlier.cuts or earlier.size > since[0].signed:
            return False
        if earlier.size == since[0].signed and earlier.root != since[0].root:
            return False
        return earlier.size > min(cut.kept for cut in since)


def open_checkpoint(note: str, origin: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Reads a signed checkpoint of the log `origin`. Raises `NoteRejected`. Lines after the first three that tell of no
    restore are somebody's extension and not looked at."""
    lines = open_note(note, keys).split("\n")
    try:
        named, size, root = lines[0], lines[1], decoded(lines[2])
    except (IndexError, ValueError):
        raise NoteRejected("a signed note that is no checkpoint") from None
    if not (size.isascii() and size.isdecimal()) or size != str(int(size)) or len(root) != HASH_BYTES:
        raise NoteRejected("a checkpoint whose size or root is none")
    if named != origin:
        raise NoteRejected(f"a checkpoint of another log, {named[:100]!r}", code="note_other_log")
    return Checkpoint(named, int(size), root, tuple(_cut(line) for line in lines[3:] if line.startswith(_ANY_CUT)))


def restores_in(note: str) -> int:
    """How many restores a note tells of, whoever has signed it."""
    return sum(line.startswith(_ANY_CUT) for line in note.partition("\n\n")[0].split("\n")[3:])


def _cut(line: str) -> Cut:
    found = _CUT.fullmatch(line)
    try:
        root = decoded(found[3]) if found is not None else b""
    except ValueError:
        root = b""
    if found is None or len(root) != HASH_BYTES or int(found[1]) >= int(found[2]):
        raise NoteRejected("a checkpoint that tells of a restore which is none")
    return Cut(int(found[1]), int(found[2]), root)
