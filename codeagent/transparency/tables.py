"""The log's rows: leaves, tiles and checkpoints, and the events they are of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import asyncpg

from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.log import Cursor, columns
from codeagent.messages.ids import INSTALLATION
from codeagent.transparency.tiles import WIDTH, right_edge
from codeagent.transparency.tree import HASH_BYTES

EVENT = f"e.transaction_id::text, {columns('e.')}"
"""The columns of an event `e`."""


class Queries(Protocol):
    """A connection, or a whole database where one statement is enough."""

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Row]: ...


AnyConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Row] | asyncpg.Connection[Row]"


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A row as it is, whatever it may say. `place` is that of the last event sealed; `thinned` is how many checkpoints
    right before it are no longer kept."""

    number: int
    size: int
    root: bytes
    note: str
    place: Cursor
    sealed_at: datetime
    thinned: int = 0


_CHECKPOINT = """SELECT number, tree_size, root, note, transaction_id::text AS tid, global_position, sealed_at, thinned
    FROM audit_checkpoints"""


def checkpoint_from(row: Row) -> StoredCheckpoint:
    place = Cursor(int(row["tid"]), row["global_position"])
    return StoredCheckpoint(
        row["number"], row["tree_size"], row["root"], row["note"], place, row["sealed_at"], row["thinned"]
    )


async def newest_checkpoint(queries: Queries, least: int = 0) -> StoredCheckpoint | None:
    """The newest one, or None where there is none of at least that size."""
    rows = await queries.fetch(f"{_CHECKPOINT} WHERE tree_size >= $1 ORDER BY tree_size DESC LIMIT 1", least)
    return checkpoint_from(rows[0]) if rows else None


async def checkpoints_after(queries: Queries, number: int, most: int) -> list[StoredCheckpoint]:
    rows = await queries.fetch(f"{_CHECKPOINT} WHERE number > $1 ORDER BY number LIMIT $2", number, most)
    return [checkpoint_from(row) for row in rows]


async def tiles(queries: Queries, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """The hashes of tiles by (level, index); those that are not there are left out."""
    pairs = list(wanted)
    rows = await queries.fetch(
        """SELECT level, tile_index, hashes FROM audit_tiles
           JOIN unnest($1::smallint[], $2::bigint[]) AS w (level, tile_index) USING (level, tile_index)""",
        [level for level, _ in pairs],
        [index for _, index in pairs],
    )
    return {(row["level"], row["tile_index"]): row["hashes"] for row in rows}


async def edge_tiles(queries: Queries, size: int) -> dict[int, bytes]:
    """By level, the hashes of the partial tiles of a tree of that size, cut to it."""
    edge = list(right_edge(size))
    found = await tiles(queries, [(tile.level, tile.index) for tile in edge])
    return {tile.level: found.get((tile.level, tile.index), b"")[: tile.width * HASH_BYTES] for tile in edge}


async def unsealed(queries: Queries, place: Cursor, most: int) -> Sequence[Row]:
    """Committed events beyond a place that are no entries yet, in the order in which they are sealed. None that another
    could still come before."""
    return await queries.fetch(
        f"""SELECT {EVENT} FROM events e
            WHERE (e.transaction_id, e.global_position) > ($1::text::xid8, $2)
                  AND e.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
                  AND NOT EXISTS (SELECT FROM audit_leaves l WHERE l.global_position = e.global_position)
            ORDER BY e.transaction_id, e.global_position LIMIT $3""",  # noqa: S608  constants
        str(place.transaction_id),
        place.global_position,
        most,
    )


async def write_leaves(queries: Queries, first: int, rows: Sequence[Row]) -> None:
    await queries.fetch(
        """INSERT INTO audit_leaves (leaf_index, global_position, event_id)
           SELECT $1 + w.place - 1, w.position, w.id
           FROM unnest($2::bigint[], $3::uuid[]) WITH ORDINALITY AS w (position, id, place)""",
        first,
        [row["global_position"] for row in rows],
        [row["event_id"] for row in rows],
    )


async def write_hashes(queries: Queries, level: int, first: int, hashes: Sequence[bytes]) -> None:
    """Adds hashes to a level, which has `first` of them."""
    pieces: dict[int, bytes] = {}
    for number, hashed in enumerate(hashes, start=first):
        pieces[number // WIDTH] = pieces.get(number // WIDTH, b"") + hashed
    await queries.fetch(
        """INSERT INTO audit_tiles (level, tile_index, hashes)
           SELECT $1, w.tile_index, w.hashes FROM unnest($2::bigint[], $3::bytea[]) AS w (tile_index, hashes)
           ON CONFLICT (level, tile_index) DO UPDATE SET hashes = audit_tiles.hashes || excluded.hashes""",
        level,
        list(pieces),
        list(pieces.values()),
    )


async def write_checkpoint(queries: Queries, number: int, size: int, root: bytes, note: str, place: Cursor) -> None:
    await queries.fetch(
        """INSERT INTO audit_checkpoints (number, tree_size, root, note, transaction_id, global_position)
           VALUES ($1, $2, $3, $4, $5::text::xid8, $6)""",
        number,
        size,
        root,
        note,
        str(place.transaction_id),
        place.global_position,
    )


async def publish_keys(queries: Queries, keys: Sequence[str]) -> None:
    await queries.fetch(
        "INSERT INTO audit_keys (verifier_key) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", list(keys)
    )


async def leaf_count(queries: Queries) -> int:
    [row] = await queries.fetch("SELECT coalesce(max(leaf_index) + 1, 0) FROM audit_leaves")
    count: int = row[0]
    return count


async def unsealed_seconds(queries: Queries, place: Cursor) -> float:
    """How long the oldest event beyond a place has been waiting, 0 where there is none."""
    rows = await queries.fetch(
        """SELECT extract(epoch FROM clock_timestamp() - recorded_at)::float8 FROM events
           WHERE (transaction_id, global_position) > ($1::text::xid8, $2)
           ORDER BY transaction_id, global_position LIMIT 1""",
        str(place.transaction_id),
        place.global_position,
    )
    return float(rows[0][0]) if rows else 0.0


async def note_anchored(database: Database, target: str, size: int) -> None:
    """That the checkpoint of that size has left the database, where its row is to be found for good."""
    await database.write(
        """WITH marked AS (UPDATE audit_checkpoints SET kept = true WHERE tree_size = $2 AND NOT kept)
           INSERT INTO audit_anchors (target, tree_size) VALUES ($1, $2)
           ON CONFLICT (target) DO UPDATE SET tree_size = excluded.tree_size, anchored_at = clock_timestamp()""",
        target,
        size,
    )


async def publish(database: Database, row_id: UUID, topic: str, key: str, headers: str, value: bytes) -> None:
    """Commits a record to be sent by the next sweep; once, while it has not been sent. `headers`: a JSON object."""
    await database.write(
        """INSERT INTO outbox (id, topic, key, tenant_id, headers, value, due_at, goes_when_sent)
           VALUES ($1, $2, $3, $4, $5::jsonb, $6, clock_timestamp(), true) ON CONFLICT (id) DO NOTHING""",
        row_id,
        topic,
        key,
        INSTALLATION,
        headers,
        value,
    )


async def unpublished_seconds(queries: Queries, topic: str) -> float:
    """How long the oldest record for a topic has been waiting to be sent, 0 where none is."""
    [row] = await queries.fetch(
        """SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM outbox
           WHERE topic = $1""",
        topic,
    )
    return float(row[0])


async def thin_checkpoints(database: Database, older_than: timedelta, most: int) -> int:
    """Looks at up to `most` that are older than that, of which the last one of each hour stays, and what was anchored;
    returns how many it has looked at."""
    [row] = await database.write("SELECT thin_checkpoints_v1($1, $2)", older_than, most)
    looked: int = row[0]
    return looked


async def unanchored_seconds(queries: Queries, target: str) -> float:
    """How long the oldest checkpoint has been waiting to leave the database, 0 where none is."""
    [row] = await queries.fetch(
        """SELECT coalesce(extract(epoch FROM clock_timestamp() - min(sealed_at)), 0)::float8 FROM audit_checkpoints
           WHERE tree_size > coalesce((SELECT tree_size FROM audit_anchors WHERE target = $1), 0)""",
        target,
    )
    return float(row[0])
