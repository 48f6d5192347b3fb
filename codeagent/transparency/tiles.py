"""The tree as tiles of 256 hashes (c2sp.org/tlog-tiles): which there are, where a node is, what they are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from codeagent.transparency.tree import HASH_BYTES, perfect_root

HEIGHT = 8
WIDTH = 1 << HEIGHT
TILE_BYTES = WIDTH * HASH_BYTES
_PATH = re.compile(r"(0|[1-9]\d?)/((?:x\d{3}/){0,5}\d{3})(?:\.p/([1-9]\d{0,2}))?")

TileOf = Callable[[int, int], bytes]
"""Gives the hashes of the tile at (level, index), one after the other."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile; full with 256 hashes, partial at the right edge of the tree."""

    level: int
    index: int
    width: int = WIDTH

    def path(self) -> str:
        """As in `0/x001/x234/067` or `1/000.p/17`."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[place : place + 3] for place in range(0, len(digits), 3)]
        name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return f"{self.level}/{name}" + ("" if self.width == WIDTH else f".p/{self.width}")


def parse_path(path: str) -> Tile | None:
    """The tile of a path, None where it names none. One tile has one path."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    tile = Tile(int(found[1]), int(found[2].replace("x", "").replace("/", "")), int(found[3] or WIDTH))
    return tile if tile.path() == path else None


def right_edge(size: int) -> Iterator[Tile]:
    """The partial tiles of a tree, from level 0 up."""
    level = 0
    while count := size >> (HEIGHT * level):
        if count % WIDTH:
            yield Tile(level, count // WIDTH, count % WIDTH)
        level += 1


def widths(size: int) -> Iterator[tuple[int, int]]:
    """(level, how many hashes it has) of every level of a tree."""
    level = 0
    while count := size >> (HEIGHT * level):
        yield level, count
        level += 1


def hashes_of(data: bytes) -> list[bytes]:
    return [data[place : place + HASH_BYTES] for place in range(0, len(data), HASH_BYTES)]


def tile_of_node(height: int, index: int) -> tuple[int, int, int]:
    """(level, tile, first hash in it) of the hashes that a node is the root of."""
    level, within = divmod(height, HEIGHT)
    first = index << within
    return level, first // WIDTH, first % WIDTH


def node_in(data: bytes, height: int, first: int) -> bytes:
    """A node from the hashes of its tile."""
    count = 1 << (height % HEIGHT)
    return perfect_root(hashes_of(data[first * HASH_BYTES : (first + count) * HASH_BYTES]))
