"""Which of two is right where an event and the tree differ: a signed root decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from codeagent.transparency.findings import Code, Discrepancy
from codeagent.transparency.tiles import WIDTH, Tile
from codeagent.transparency.tree import CompactRange
from codeagent.transparency.witnesses import Witness

_MOST_OPEN = 1_000


@dataclass(slots=True)
class Settling:
    """The tree as the tiles have it, and as the events have it, from the last root that was agreed on.

    `changed_tiles` are those of level 0 of which a hash was found to be changed.
    """

    tiles: CompactRange
    events: CompactRange = field(init=False)
    changed_tiles: set[int] = field(default_factory=set)
    size: int = field(init=False)
    """Entries so far."""
    _open: list[tuple[int, str]] = field(default_factory=list)
    _is_known: bool = True
    _contradicted: set[Code] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.events, self.size = self.tiles.copy(), self.tiles.size

    def add(self, where: str, tile_hash: bytes | None, event_hash: bytes | None) -> Iterator[Discrepancy]:
        """The next entry, of which one of the two may be lost."""
        self.size += 1
        known = tile_hash if tile_hash is not None else event_hash
        if known is None:
            self._is_known = False
            return
        if tile_hash is not None and event_hash is not None and tile_hash != event_hash:
            self._open.append((self.size - 1, where))
            if len(self._open) > _MOST_OPEN:
                yield from self._events_are_wrong()
        self.tiles.append(known)
        self.events.append(event_hash if event_hash is not None else known)

    def settle(self, witness: Witness) -> Iterator[Discrepancy]:
        """Holds the entries up to now against a signed root."""
        if not self._is_known:
            if witness.code not in self._contradicted:
                yield Discrepancy(witness.code, witness.name, "its root cannot be computed any more: hashes are lost")
            self._contradicted.add(witness.code)
            return
        if self.tiles.root() == witness.root:
            yield from self._events_are_wrong()
            self._contradicted.discard(witness.code)
        elif self._open and self.events.root() == witness.root:
            yield from self._tiles_are_wrong()
            self._contradicted.discard(witness.code)
        else:
            yield from self._events_are_wrong()
            if witness.code not in self._contradicted:  # later ones contradict as well: they continue this one
                yield Discrepancy(
                    witness.code,
                    witness.name,
                    f"the log has another root than the signed one at {witness.size} entries",
                )
            self._contradicted.add(witness.code)

    def end(self) -> Iterator[Discrepancy]:
        """What no signed root covers."""
        yield from self._events_are_wrong()

    def _events_are_wrong(self) -> Iterator[Discrepancy]:
        for _, where in self._open:
            yield Discrepancy(Code.EVENT_REPLACED, where, "its hashes agree, and are not those that were sealed")
        self._agree()

    def _tiles_are_wrong(self) -> Iterator[Discrepancy]:
        for index, _ in self._open:
            tile = index // WIDTH
            self.changed_tiles.add(tile)
            where = f"tile {Tile(0, tile).path()}"
            yield Discrepancy(Code.TILE_CHANGED, where, f"its hash of entry {index} is not the one that was signed")
        self.tiles = self.events
        self._agree()

    def _agree(self) -> None:
        self._open.clear()
        self.events = self.tiles.copy()
