"""What the walk over entries cannot see: events that are no entries, streams with holes, tiles of higher levels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from codeagent.eventlog.log import Cursor
from codeagent.transparency import tables
from codeagent.transparency.findings import Code, Discrepancy
from codeagent.transparency.rows import own_leaf, problems_in
from codeagent.transparency.tiles import TILE_BYTES, WIDTH, Tile, hashes_of, widths
from codeagent.transparency.tree import HASH_BYTES, perfect_root

_UNMAPPED = f"""SELECT {tables.EVENT} FROM events e
    WHERE (e.transaction_id, e.global_position) >= ($1::text::xid8, $2)
          AND ($3::text IS NULL OR (e.transaction_id, e.global_position) <= ($3::text::xid8, $4))
          AND NOT EXISTS (SELECT FROM audit_leaves l WHERE l.global_position = e.global_position)
    ORDER BY e.transaction_id, e.global_position"""  # noqa: S608  constants
_HOLES = """SELECT stream_id, stream_version, previous FROM (
        SELECT stream_id, stream_version, lag(stream_version, 1, 0::bigint) OVER stream AS previous FROM events
        WINDOW stream AS (PARTITION BY stream_id ORDER BY stream_version)) s
    WHERE stream_version <> previous + 1"""
_TILES = "SELECT level, tile_index, hashes FROM audit_tiles ORDER BY level, tile_index"
_AT_ONCE = 200


@dataclass(slots=True)
class Unmapped:
    """Events that are no entries: inserted where others were sealed, or new."""

    connection: tables.AnyConnection
    lost: set[bytes]
    """Hashes of entries whose event is not known any more: an event with one of them was not inserted."""
    waiting: int = 0
    """Events that were not sealed yet."""

    async def findings(self, begins: Cursor, place: Cursor, *, is_bounded: bool) -> AsyncIterator[Discrepancy]:
        """`place` is that of the last entry. What stands beyond it is new, and no matter where it `is_bounded`."""
        end = (str(place.transaction_id), place.global_position) if is_bounded else (None, None)
        rows = self.connection.cursor(
            _UNMAPPED, str(begins.transaction_id), begins.global_position, *end, prefetch=_AT_ONCE
        )
        async for row in rows:
            where = f"event {row['event_id']} {row['stream_id']} version {row['stream_version']}"
            if Cursor(int(row["transaction_id"]), row["global_position"]) > place:
                self.waiting += 1
            elif own_leaf(row) not in self.lost:
                yield Discrepancy(Code.EVENT_INSERTED, where, "it was not there when the events around it were sealed")
            for code, detail in problems_in(row):
                yield Discrepancy(Code(code), where, detail)


async def holes(
    connection: tables.AnyConnection,
) -> AsyncIterator[Discrepancy]:
    """Streams whose versions do not follow one another."""
    async for row in connection.cursor(_HOLES, prefetch=_AT_ONCE):
        missing = range(row["previous"] + 1, row["stream_version"])
        which = f"version {missing[0]}" + (f" to {missing[-1]}" if len(missing) > 1 else "")
        yield Discrepancy(Code.STREAM_BROKEN, row["stream_id"], f"{which} of the stream is not there")


@dataclass(slots=True)
class TileCheck:
    """Each full tile is a hash of the tile above it, and a tree of so many entries has so many tiles."""

    queries: tables.Queries
    connection: tables.AnyConnection
    size: int
    changed: set[int]
    """Tiles of level 0 that are known to be wrong."""
    _above: dict[tuple[int, int], bytes] = field(default_factory=dict)

    async def findings(self) -> AsyncIterator[Discrepancy]:
        counts = dict(widths(self.size))
        following = dict.fromkeys(counts, 0)
        async for row in self.connection.cursor(_TILES, prefetch=_AT_ONCE):
            level, index, data = row["level"], row["tile_index"], row["hashes"] or b""
            for found in self._shape(level, index, len(data) // HASH_BYTES, counts, following):
                yield found
            if len(data) == TILE_BYTES and level + 1 in counts and not (level == 0 and index in self.changed):
                async for found in self._summed(level, index, data):
                    yield found
        for level, next_index in following.items():
            if level > 0 and next_index * WIDTH < counts[level]:
                yield Discrepancy(
                    Code.TILE_MISSING, f"tile {Tile(level, next_index).path()}", "it is gone, or those after it"
                )

    def _shape(
        self, level: int, index: int, width: int, counts: dict[int, int], following: dict[int, int]
    ) -> Iterator[Discrepancy]:
        where = f"tile {Tile(level, index).path()}"
        expected = min(max(counts.get(level, 0) - index * WIDTH, 0), WIDTH)
        if width > expected:
            yield Discrepancy(Code.TILE_SURPLUS, where, f"it has {width} hashes, and the log entries for {expected}")
        elif level > 0 and width < expected:
            yield Discrepancy(Code.TILE_MISSING, where, f"it has {width} hashes instead of {expected}")
        if level > 0 and level in counts and index > following[level]:
            yield Discrepancy(Code.TILE_MISSING, f"tile {Tile(level, following[level]).path()}", f"the next is {index}")
        if level in counts:
            following[level] = index + 1

    async def _summed(self, level: int, index: int, data: bytes) -> AsyncIterator[Discrepancy]:
        above = (level + 1, index // WIDTH)
        if above not in self._above:
            self._above = await tables.tiles(self.queries, [above])
        hashes = hashes_of(self._above.get(above, b""))
        if index % WIDTH < len(hashes) and hashes[index % WIDTH] != perfect_root(hashes_of(data)):
            below, where = Tile(level, index).path(), f"tile {Tile(*above).path()}"
            yield Discrepancy(Code.TILE_CHANGED, where, f"its hash {index % WIDTH} is not the root of tile {below}")
