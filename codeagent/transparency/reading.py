"""Proofs from the stored tiles."""

from __future__ import annotations

from collections.abc import Sequence

from codeagent.transparency import tables
from codeagent.transparency.checkpoints import Checkpoint
from codeagent.transparency.proofs import (
    ProofRejected,
    Range,
    check_consistency,
    consistency_ranges,
    inclusion_ranges,
)
from codeagent.transparency.tiles import node_in, tile_of_node
from codeagent.transparency.tree import HASH_BYTES, folded, subtrees


class StoredTree:
    """The tree as the tiles of a database have it. Nothing of it is believed: who gets a proof verifies it."""

    def __init__(self, queries: tables.Queries) -> None:
        self._queries = queries

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """That entry `index` is in the tree of `size`. Raises `ProofRejected` where hashes are missing."""
        return await self._hashes(inclusion_ranges(index, size))

    async def inclusions(self, indexes: Sequence[int], size: int) -> list[tuple[bytes, ...]]:
        """The same of many entries, with one look at the tiles."""
        wanted = [inclusion_ranges(index, size) for index in indexes]
        hashes = iter(await self._hashes([each for ranges in wanted for each in ranges]))
        return [tuple(next(hashes) for _ in ranges) for ranges in wanted]

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """That the tree of `new` entries begins with that of `old`. Raises `ProofRejected` where hashes are missing."""
        return await self._hashes(consistency_ranges(old, new))

    async def root(self, size: int) -> bytes:
        [root] = await self._hashes([(0, size)])
        return root

    async def nodes(self, size: int) -> tuple[bytes, ...]:
        """The perfect subtrees of the first `size` entries, the largest first: what a `CompactRange` is made of."""
        return await self._hashes([(index << height, (index + 1) << height) for height, index in subtrees(0, size)])

    async def check_continues(self, old: Checkpoint, new: Checkpoint | None) -> None:
        """Raises `ProofRejected` unless the tree of `new` begins with that of `old`, or `new` states that it goes on
        from a restore without what `old` covers."""
        if new is not None and new.gives_up(old):
            return
        if new is None or new.size < old.size:
            size = 0 if new is None else new.size
            raise ProofRejected(f"the log was cut: it had {old.size} entries and has {size}")
        path = await self.consistency(old.size, new.size)
        check_consistency(old.size, new.size, path, old.root, new.root)

    async def _hashes(self, ranges: Sequence[Range]) -> tuple[bytes, ...]:
        wanted = [[(node, tile_of_node(*node)) for node in subtrees(*each)] for each in ranges]
        tiles = {(level, index) for nodes in wanted for _, (level, index, _) in nodes}
        found = await tables.tiles(self._queries, tiles)
        return tuple(
            folded(
                [_node(found.get((level, index), b""), height, first) for (height, _), (level, index, first) in nodes]
            )
            for nodes in wanted
        )


def _node(data: bytes, height: int, first: int) -> bytes:
    if len(data) < (first + (1 << height % 8)) * HASH_BYTES:
        raise ProofRejected("the tree is not whole: a tile is missing, or shorter than it was")
    return node_in(data, height, first)
