"""Checkpoints that a log is held against: its own, those that were anchored, and those that somebody has kept."""

from __future__ import annotations

import heapq
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from codeagent.eventlog.log import Cursor
from codeagent.transparency import tables
from codeagent.transparency.checkpoints import Checkpoint, open_checkpoint
from codeagent.transparency.findings import OF_NOTES, Code, Discrepancy
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.notes import MOST_NOTE_BYTES, NoteRejected

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Witness:
    """The log has this root at this size, says a signed checkpoint called `name`. `place` is where its last event
    stands, for checkpoints of the database; `kept_at` is told by where others are kept."""

    checkpoint: Checkpoint
    name: str
    code: Code
    place: Cursor | None = None
    kept_at: datetime | None = None

    @property
    def size(self) -> int:
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        return self.checkpoint.root


Found = Witness | Discrepancy


async def stored_witnesses(queries: tables.Queries, keys: LogKeys) -> AsyncIterator[Found]:
    """The database's own checkpoints in order; what is wrong with one takes its place."""
    number, size = 0, 0
    while page := await tables.checkpoints_after(queries, number, _PAGE):
        for stored in page:
            name = f"checkpoint {stored.number}"
            first = stored.number - stored.thinned
            if first > number + 1:
                yield _missing(number + 1, first)
            elif first <= number:
                yield Discrepancy(Code.CHECKPOINT_CHANGED, name, "it counts more that were before it than there were")
            number = stored.number
            opened = _opened(stored.note, keys, name)
            if isinstance(opened, Discrepancy):
                yield opened
            elif (opened.size, opened.root) != (stored.size, stored.root) or opened.size <= size:
                yield Discrepancy(Code.CHECKPOINT_CHANGED, name, "it is not filed as what it says, or out of order")
            else:
                size = opened.size
                yield Witness(opened, name, Code.CHECKPOINT_CONTRADICTS, stored.place)


async def newest_signed(queries: tables.Queries, keys: LogKeys) -> Checkpoint | None:
    """The database's newest checkpoint, None where there is none, or none that the keys vouch for."""
    stored = await tables.newest_checkpoint(queries)
    opened = None if stored is None else _opened(stored.note, keys, f"checkpoint {stored.number}")
    return opened if isinstance(opened, Checkpoint) else None


def _missing(first: int, following: int) -> Discrepancy:
    """`following` is there, or was when it was thinned out."""
    which = f"checkpoint {first}" + (f" to {following - 1}" if following > first + 1 else "")
    return Discrepancy(Code.CHECKPOINT_MISSING, which, f"the next one is number {following}")


def _opened(note: str, keys: LogKeys, name: str) -> Checkpoint | Discrepancy:
    try:
        return open_checkpoint(note, keys.origin, keys.verifying)
    except NoteRejected as error:
        return Discrepancy(OF_NOTES[error.code], name, error.detail)


def kept_witnesses(files: Iterable[Path], keys: LogKeys) -> Iterator[Found]:
    """Checkpoints in files outside the database, in the order of the files."""
    for path in files:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                note = file.read(MOST_NOTE_BYTES + 1)
                kept_at = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        except OSError as error:
            yield Discrepancy(Code.CHECKPOINT_MALFORMED, path.name, f"cannot be read: {error.strerror}")
            continue
        yield heard(path.name, note, keys, kept_at)


def heard(name: str, note: str, keys: LogKeys, kept_at: datetime | None = None) -> Found:
    """What a checkpoint that was kept elsewhere under that name has to say."""
    opened = _opened(note, keys, name)
    if isinstance(opened, Discrepancy):
        return opened
    return Witness(opened, name, Code.ANCHOR_CONTRADICTS, kept_at=kept_at)


def without_given_up(kept: Iterable[Found], log: Checkpoint | None) -> list[Found]:
    """What a log has to be held against, which its newest checkpoint does not state to be given up by a restore."""
    return [each for each in kept if log is None or not (isinstance(each, Witness) and log.gives_up(each.checkpoint))]


class Witnesses:
    """All of them by size. Kept ones are few enough to be held; the database's own are read as they are needed."""

    def __init__(self, stored: AsyncIterator[Found], kept: Iterable[Found]) -> None:
        self._stored = stored
        kept = list(kept)
        self.discrepancies = [found for found in kept if isinstance(found, Discrepancy)]
        self._kept = [(each.size, place, each) for place, each in enumerate(kept) if isinstance(each, Witness)]
        heapq.heapify(self._kept)
        self._next: Witness | None = None
        self.count = 0
        self.newest_stored = 0

    async def upto(self, size: int) -> AsyncIterator[Found]:
        """Those of at most that size that were not given before."""
        while True:
            if self._next is None:
                found = await anext(self._stored, None)
                if isinstance(found, Discrepancy):
                    yield found
                    continue
                self._next = found
                self.newest_stored = self.newest_stored if found is None else found.size
            kept = self._kept[0][2] if self._kept else None
            own = self._next
            first = min((each for each in (own, kept) if each is not None), key=lambda each: each.size, default=None)
            if first is None or first.size > size:
                return
            if first is own:
                self._next = None
            else:
                heapq.heappop(self._kept)
            self.count += 1
            yield first
