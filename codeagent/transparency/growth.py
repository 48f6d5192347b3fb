"""The stored tree at its right edge: read back and held against a root, and what more leaves add to which tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codeagent.transparency.tiles import HEIGHT, WIDTH, hashes_of, node_in, right_edge, tile_of_node
from codeagent.transparency.tree import HASH_BYTES, CompactRange, perfect_root, subtrees


class Growth:
    """A tree of `size` leaves with the partial tiles of its right edge, by level."""

    def __init__(self, size: int, edge: Mapping[int, bytes]) -> None:
        """Raises `ValueError` where a partial tile is not as wide as the size says."""
        for tile in right_edge(size):
            if len(edge.get(tile.level, b"")) != tile.width * HASH_BYTES:
                raise ValueError(f"tile {tile.path()} is not there, or shorter")
        self._edge = edge
        self._tree = CompactRange(size, [self._node(height, index) for height, index in subtrees(0, size)])
        self.size = size
        self.root = self._tree.root()

    def _node(self, height: int, index: int) -> bytes:
        level, _, first = tile_of_node(height, index)
        return node_in(self._edge[level], height, first)

    def add(self, leaves: Sequence[bytes]) -> dict[int, tuple[int, list[bytes]]]:
        """By level, how many hashes it had and those that come to it. To be called once."""
        for leaf in leaves:
            self._tree.append(leaf)
        added: dict[int, tuple[int, list[bytes]]] = {}
        level, hashes = 0, list(leaves)
        while hashes:
            had = self.size >> (HEIGHT * level)
            added[level] = (had, hashes)
            row = hashes_of(self._edge.get(level, b"")) + hashes
            full = len(row) - len(row) % WIDTH
            hashes = [perfect_root(row[place : place + WIDTH]) for place in range(0, full, WIDTH)]
            level += 1
        self.size, self.root = self._tree.size, self._tree.root()
        return added
