"""Inclusion and consistency proofs of RFC 9162, sections 2.1.3 and 2.1.4: what they consist of, and their verification.

A proof is planned as ranges of leaves, whose hashes whoever has the tree then looks up.
"""

from __future__ import annotations

from collections.abc import Sequence

from codeagent.errors import Rejected
from codeagent.transparency.tree import EMPTY_ROOT, node_hash, split

Range = tuple[int, int]
"""Leaves from the first up to the second."""


class ProofRejected(Rejected):
    """A proof that does not show what it is to show. `detail` says why."""

    code = "proof_rejected"


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The ranges whose hashes lead from leaf `index` to the root of `size` leaves, the leaf's sibling first."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    start, end = 0, size
    path: list[Range] = []
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """The ranges whose hashes show that the tree of `new` leaves begins with that of `old`."""
    if not 0 < old <= new:
        raise ValueError(f"there is no proof from {old} to {new} leaves")
    start, end = 0, new
    path: list[Range] = []
    while end != old:
        middle = start + split(end - start)
        if old <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    if start > 0:
        path.append((start, end))  # else it is the old root itself, which the verifier has
    return path[::-1]


def inclusion_root(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that a proof leads to. Raises `ProofRejected` where its length does not fit the place."""
    if not 0 <= index < size:
        raise ProofRejected(f"a log of {size} entries has no entry {index}")
    place, last, root = index, size - 1, leaf
    for hashed in path:
        if last == 0:
            raise ProofRejected("the proof is longer than the tree is high")
        if place % 2 == 1 or place == last:
            root = node_hash(hashed, root)
            while place % 2 == 0 and place != 0:
                place, last = place // 2, last // 2
        else:
            root = node_hash(root, hashed)
        place, last = place // 2, last // 2
    if last != 0:
        raise ProofRejected("the proof is shorter than the tree is high")
    return root


def check_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Raises `ProofRejected` unless the leaf is entry `index` of the tree of that size and root."""
    if inclusion_root(index, size, leaf, path) != root:
        raise ProofRejected(f"the entry is not number {index} of the log: the proof leads to another root")


def check_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Raises `ProofRejected` unless the newer tree begins with the older one."""
    if old > new:
        raise ProofRejected(f"a log of {new} entries is older than one of {old}")
    if old in (0, new):
        if path or old_root != (EMPTY_ROOT if old == 0 else new_root):
            raise ProofRejected(f"two logs of {old} entries, or none, have different roots or a proof")
        return
    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not hashes:
        raise ProofRejected("the proof is empty")
    old_found, new_found = _consistent_roots(old - 1, new - 1, hashes)
    if old_found != old_root:
        raise ProofRejected(f"the proof does not begin with the log of {old} entries")
    if new_found != new_root:
        raise ProofRejected(f"the log of {new} entries does not continue that of {old}: something before was changed")


def _consistent_roots(place: int, last: int, hashes: Sequence[bytes]) -> tuple[bytes, bytes]:
    while place % 2 == 1:
        place, last = place // 2, last // 2
    old_root = new_root = hashes[0]
    for hashed in hashes[1:]:
        if last == 0:
            raise ProofRejected("the proof is longer than the tree is high")
        if place % 2 == 1 or place == last:
            old_root, new_root = node_hash(hashed, old_root), node_hash(hashed, new_root)
            while place % 2 == 0 and place != 0:
                place, last = place // 2, last // 2
        else:
            new_root = node_hash(new_root, hashed)
        place, last = place // 2, last // 2
    if last != 0:
        raise ProofRejected("the proof is shorter than the tree is high")
    return old_root, new_root
