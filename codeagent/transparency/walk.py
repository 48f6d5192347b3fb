"""Every entry of the log in order: its event, its hash in the tiles, and the signed roots it leads to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from codeagent.eventlog.database import Row
from codeagent.eventlog.log import Cursor
from codeagent.transparency import tables
from codeagent.transparency.findings import Code, Discrepancy
from codeagent.transparency.rows import own_leaf, problems_in
from codeagent.transparency.settling import Settling
from codeagent.transparency.tiles import WIDTH, Tile, hashes_of
from codeagent.transparency.witnesses import Witness, Witnesses

_ENTRIES = f"""SELECT l.leaf_index, l.global_position AS sealed_position, l.event_id AS sealed_id, {tables.EVENT}
    FROM audit_leaves l LEFT JOIN events e ON e.global_position = l.global_position
    WHERE l.leaf_index >= $1 AND l.leaf_index < $2 ORDER BY l.leaf_index"""  # noqa: S608  constants
_BY_ID = f"SELECT {tables.EVENT} FROM events e WHERE e.event_id = ANY ($1)"  # noqa: S608  constants
_MOST_UNMAPPED = 10_000


@dataclass(slots=True)
class Walk:
    """Goes from entry `first` up to `end`, at most a tile of them in memory."""

    queries: tables.Queries
    witnesses: Witnesses
    settling: Settling
    first: int
    end: int
    length: int
    """How many entries the log has."""
    begins: Cursor | None = None
    """Where the first event stands,"""
    place: Cursor = field(default_factory=Cursor)
    """and where the last one does."""
    is_placed: bool = False
    """Whether the last entry's event is where it was sealed."""
    unmapped: set[bytes] = field(default_factory=set)
    """Hashes of entries of which it is lost what they are of."""
    _settled: int = 0
    """How many entries the last signed root covers that they were held against."""

    async def findings(self) -> AsyncIterator[Discrepancy]:
        for start in range(self.first - self.first % WIDTH, self.end, WIDTH):
            async for found in self._tile(start // WIDTH, max(start, self.first), min(start + WIDTH, self.end)):
                yield found
        if self._settled < self.end < self.length:
            async for found in self._lead_on():
                yield found
        for found in self.settling.end():
            yield found

    async def _lead_on(self) -> AsyncIterator[Discrepancy]:
        """From the end of the range to the next checkpoint, by the tiles alone: nothing else vouches for the entries
        before the end."""
        async for witness in self.witnesses.upto(self.length):
            if isinstance(witness, Discrepancy):
                yield witness
                continue
            for start in range(self.end - self.end % WIDTH, witness.size, WIDTH):
                hashes = await self._hashes(start // WIDTH)
                for index in range(max(start, self.end), min(start + WIDTH, witness.size)):
                    for found in self.settling.add(f"entry {index}", hashes.get(index), None):
                        yield found
            for found in self.settling.settle(witness):
                yield found
            return
        yield Discrepancy(
            Code.CHECKPOINT_MISSING, f"entry {self.end - 1}", "no checkpoint that can be believed covers it"
        )

    async def _hashes(self, tile: int) -> dict[int, bytes]:
        """Of the entries of a tile, by their index."""
        data = (await tables.tiles(self.queries, [(0, tile)])).get((0, tile), b"")
        return dict(enumerate(hashes_of(data), start=tile * WIDTH))

    async def _tile(self, tile: int, start: int, end: int) -> AsyncIterator[Discrepancy]:
        hashes = await self._hashes(tile)
        entries = {row["leaf_index"]: row for row in await self.queries.fetch(_ENTRIES, start, end)}
        elsewhere = await self._elsewhere(list(entries.values()))
        for found in (*_lost_hashes(tile, hashes, start, end), *_lost_entries(entries, start, end)):
            yield found
        for index in range(start, end):
            for found in self._entry(index, hashes.get(index), entries.get(index), elsewhere):
                yield found
            async for witness in self.witnesses.upto(index + 1):
                for found in self._heard(witness):
                    yield found

    async def _elsewhere(self, entries: Sequence[Row]) -> dict[object, Row]:
        """By id, events that do not stand where they were sealed."""
        strays = [entry["sealed_id"] for entry in entries if entry["event_id"] != entry["sealed_id"]]
        rows = await self.queries.fetch(_BY_ID, strays) if strays else ()
        return {row["event_id"]: row for row in rows}

    def _entry(
        self, index: int, hashed: bytes | None, entry: Row | None, elsewhere: dict[object, Row]
    ) -> Iterator[Discrepancy]:
        where = f"entry {index}"
        row = entry
        if entry is None:
            if hashed is not None and len(self.unmapped) < _MOST_UNMAPPED:
                self.unmapped.add(hashed)
        else:
            where = f"entry {index} (event {entry['sealed_id']}, position {entry['sealed_position']})"
            if entry["event_id"] != entry["sealed_id"]:
                row = elsewhere.get(entry["sealed_id"])
                yield _stray(where, row)
        leaf, self.is_placed = None, entry is not None and row is entry
        if row is not None:
            leaf = _leaf_of(row, hashed)
            yield from _problems(row, where, hashed)
            yield from self._order(where, row)
        yield from self.settling.add(where, hashed, leaf)

    def _order(self, where: str, row: Row) -> Iterator[Discrepancy]:
        place = Cursor(int(row["transaction_id"] or 0), row["global_position"])
        if self.begins is None:
            self.begins = place
        elif place < self.place:
            yield Discrepancy(Code.EVENT_MOVED, where, "it stands before the event that was sealed before it")
        self.place = place

    def _heard(self, found: Witness | Discrepancy) -> Iterator[Discrepancy]:
        if isinstance(found, Discrepancy):
            yield found
        elif found.size == self.settling.size:
            self._settled = found.size
            yield from self.settling.settle(found)
            if self.is_placed and found.place not in (None, self.place):
                yield Discrepancy(Code.CHECKPOINT_CHANGED, found.name, "its place is not that of its last event")


def _lost_hashes(tile: int, hashes: dict[int, bytes], start: int, end: int) -> Iterator[Discrepancy]:
    lost = [index for index in range(start, end) if index not in hashes]
    if lost:
        detail = f"hashes of entries {lost[0]} to {lost[-1]} are gone"
        yield Discrepancy(Code.TILE_MISSING, f"tile {Tile(0, tile).path()}", detail)


def _lost_entries(entries: dict[int, Row], start: int, end: int) -> Iterator[Discrepancy]:
    lost = [index for index in range(start, end) if index not in entries]
    if len(lost) == end - start > 1:
        yield Discrepancy(
            Code.LEAF_MISSING, f"entries {start} to {end - 1}", "the map does not say which events they are"
        )
        return
    for index in lost:
        yield Discrepancy(Code.LEAF_MISSING, f"entry {index}", "the map does not say which event it is")


def _stray(where: str, row: Row | None) -> Discrepancy:
    if row is None:
        return Discrepancy(Code.EVENT_DELETED, where, "the event is gone")
    return Discrepancy(Code.EVENT_MOVED, where, f"the event stands at position {row['global_position']}")


def _leaf_of(row: Row, hashed: bytes | None) -> bytes:
    """The hash that the event claims: the sealed one where any of its two is that."""
    stored: bytes = row["leaf_hash"] or b""
    if stored == hashed:
        return stored
    own = own_leaf(row)
    return stored if own is None else own


def _problems(row: Row, where: str, hashed: bytes | None) -> Iterator[Discrepancy]:
    told = f"{where} {row['stream_id']} version {row['stream_version']}"
    for code, detail in problems_in(row):
        if code == Code.ATTRIBUTES_CHANGED and hashed is not None and own_leaf(row) == hashed:
            yield Discrepancy(Code.LEAF_HASH_CHANGED, told, "the stored leaf hash is not the one that was sealed")
        else:
            yield Discrepancy(Code(code), told, detail)
