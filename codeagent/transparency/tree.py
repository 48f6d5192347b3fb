"""RFC 9162's Merkle tree, section 2.1: how leaf hashes combine, and a tree that grows without being kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

NodeOf = Callable[[int, int], bytes]
"""Gives the root of the perfect subtree at (height, index): of the leaves from index * 2**height on."""


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root of a subtree of 2**n hashes."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[place], level[place + 1]) for place in range(0, len(level), 2)]
    return level[0]


def folded(roots: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees that stand side by side, the largest first."""
    root = roots[-1]
    for left in reversed(roots[:-1]):
        root = node_hash(left, root)
    return root


def subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """The perfect subtrees that the leaves from `start` up to `end` consist of, as (height, index), the largest first.
    `start` is where the tree splits: a multiple of the largest of them."""
    found: list[tuple[int, int]] = []
    while start < end:
        height = (end - start).bit_length() - 1
        found.append((height, start >> height))
        start += 1 << height
    return found


def range_hash(start: int, end: int, node_of: NodeOf) -> bytes:
    """RFC 9162's MTH of the leaves from `start` up to `end`."""
    return folded([node_of(height, index) for height, index in subtrees(start, end)])


def split(count: int) -> int:
    """The largest power of two below `count`, where a tree of so many leaves has its left half end."""
    return 1 << ((count - 1).bit_length() - 1)


class CompactRange:
    """What has to be known of a tree of `size` leaves so that more can follow: the roots of its perfect subtrees, the
    largest first; one hash for each bit of `size` that is set."""

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        if len(nodes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees, not {len(nodes)}")
        self.size = size
        self._nodes = list(nodes)

    def append(self, leaf: bytes) -> None:
        self._nodes.append(leaf)
        self.size += 1
        rest = self.size
        while rest % 2 == 0:
            right = self._nodes.pop()
            self._nodes[-1] = node_hash(self._nodes[-1], right)
            rest //= 2

    def root(self) -> bytes:
        return folded(self._nodes) if self._nodes else EMPTY_ROOT

    def copy(self) -> CompactRange:
        return CompactRange(self.size, self._nodes)
