"""Files with holes, in the four ways tar has to write them. A hole counts like any content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from codeagent.artifacts.uploads.limits import Meter, unreadable

_BLOCK = 512
_ZEROS = bytes(64 << 10)
_DECIMAL = re.compile(rb"\d{1,19}")


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Where the stored bytes belong: (offset, count) in order, and the size of the whole file."""

    segments: tuple[tuple[int, int], ...]
    real_size: int

    def checked(self, stored: int) -> SparseMap:
        """Raises `Rejected` unless the segments are in order, inside the file, and made of `stored` bytes."""
        position = 0
        for offset, count in self.segments:
            if offset < position:
                raise unreadable("a sparse file's parts are not in order")
            position = offset + count
        if position > self.real_size or sum(count for _, count in self.segments) != stored:
            raise unreadable("a sparse file's parts do not match its size")
        return self


class Body(Protocol):
    """A member's stored bytes."""

    left: int

    def exactly(self, count: int) -> bytes: ...
    def pieces(self, count: int) -> Iterator[bytes]: ...


def expanded(sparse: SparseMap, body: Body) -> Iterator[bytes]:
    """The file with its holes filled with zeros, in pieces."""
    position = 0
    for offset, count in sparse.segments:
        yield from _hole(offset - position)
        yield from body.pieces(count)
        position = offset + count
    yield from _hole(sparse.real_size - position)


def _hole(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= len(_ZEROS)


def decimal(text: bytes) -> int:
    """Raises `Rejected` for anything but up to 19 digits."""
    if not _DECIMAL.fullmatch(text):
        raise unreadable("a number is not valid")
    return int(text)


def paired(numbers: list[int], meter: Meter) -> tuple[tuple[int, int], ...]:
    if len(numbers) % 2:
        raise unreadable("a sparse file's map is incomplete")
    meter.header(len(numbers) // 2)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def map_in_content(body: Body, meter: Meter) -> tuple[tuple[int, int], ...]:
    """The map that precedes the content: a count, then offsets and counts, a decimal number a line, then padding."""
    numbers: list[int] = []
    pending, expected = b"", 1
    while len(numbers) < expected:
        meter.extension(_BLOCK)
        *lines, pending = (pending + body.exactly(_BLOCK)).split(b"\n")
        numbers += [decimal(line) for line in lines[: expected - len(numbers)]]
        if numbers and expected == 1:
            meter.header(numbers[0])
            expected += 2 * numbers[0]
            numbers += [decimal(line) for line in lines[1:expected]]
        if len(pending) > _BLOCK:
            raise unreadable("a sparse file's map is not valid")
    return paired(numbers[1:], meter)
