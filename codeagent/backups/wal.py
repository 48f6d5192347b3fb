"""The archived write-ahead log: which segments are there, on which timelines, and how far they go without a gap."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file of the write-ahead log. Numbers run on from one timeline to the next."""

    timeline: int
    number: int

    def name(self, segment_bytes: int) -> str:
        high, low = divmod(self.number, (1 << 32) // segment_bytes)
        return f"{self.timeline:08X}{high:08X}{low:08X}"

    @classmethod
    def named(cls, name: str, segment_bytes: int) -> Segment | None:
        """The segment of that file name; None for the other files that an archive has."""
        match = _SEGMENT.fullmatch(name)
        if match is None:
            return None
        timeline, high, low = (int(part, 16) for part in match.groups())
        return cls(timeline, high * ((1 << 32) // segment_bytes) + low)


def parse_position(text: str) -> int:
    """A place in the write-ahead log, as in `0/3000148`. Raises `ValueError`."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A timeline and those that it came from: `left` has each of them, with the place at which it was left."""

    number: int
    left: tuple[tuple[int, int], ...] = ()

    def left_at(self, timeline: int) -> int | None:
        """Where the timeline was left for this one; None where it is no ancestor."""
        return dict(self.left).get(timeline)

    def descends_from(self, timeline: int, position: int) -> bool:
        """Whether what was on that timeline up to `position` is a part of this one."""
        left_at = self.left_at(timeline)
        return timeline == self.number or (left_at is not None and left_at >= position)

    def holders(self, number: int, segment_bytes: int) -> Iterator[Segment]:
        """The segments that may have that number, the better first: the one in which a timeline was left is copied to
        the next one, and is a while there before it is archived."""
        timelines = [*(timeline for timeline, _ in self.left), self.number]
        begins = [0, *(position // segment_bytes for _, position in self.left)]
        for timeline, begin in reversed(list(zip(timelines, begins, strict=True))):
            if begin <= number:
                yield Segment(timeline, number)
                if begin < number:
                    return


@dataclass(frozen=True, slots=True)
class Coverage:
    """What can be replayed without a gap: segments from the backup's first up to `last`. `beyond` is how many are there
    behind `missing`, the first that is not."""

    last: Segment | None
    missing: Segment
    beyond: int


class WalArchive:
    """A directory of segments and timelines' histories, as PostgreSQL's archiver fills it. Files that are not whole
    count as missing: they cannot be replayed."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes

    def segments(self) -> set[Segment]:
        return segments_in(self.folder, self._segment_bytes)

    def timelines(self) -> dict[int, Timeline]:
        """Those that began after another one."""
        found = {}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if match := _HISTORY.fullmatch(path.name):
                number = int(match[1], 16)
                found[number] = Timeline(number, tuple(_left(path.read_text(encoding="utf-8").splitlines())))
        return found


def segments_in(folder: Path, segment_bytes: int) -> set[Segment]:
    """The whole segments of a directory."""
    paths = folder.iterdir() if folder.is_dir() else ()
    found = ((Segment.named(path.name, segment_bytes), path) for path in paths)
    return {segment for segment, path in found if segment is not None and path.stat().st_size == segment_bytes}


def _left(lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    """A timeline and the place at which it was left, of each line of a history: number, place, reason."""
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0].isdecimal():
            yield int(words[0]), parse_position(words[1])


def covered(first: int, timeline: Timeline, there: Set[Segment], segment_bytes: int) -> Coverage:
    """How far a timeline can be replayed from segment `first` on with the segments that are there."""
    number, last = first, None
    while found := next((each for each in timeline.holders(number, segment_bytes) if each in there), None):
        number, last = number + 1, found
    behind = {
        each.number
        for each in there
        if each.number > number and each in set(timeline.holders(each.number, segment_bytes))
    }
    return Coverage(last, next(timeline.holders(number, segment_bytes)), len(behind))
