"""The attacks on a log of 302 sealed entries, of which entry n stands at position n + 1, and two events after them.

Checkpoints 1 to 4 cover 5, 8, 298 and 302 entries. Tile 0/000 is full, 0/001 has 46 hashes, 1/000 has one.
"""

from __future__ import annotations

from hashlib import sha256

import asyncpg

from codeagent.transparency.checkpoints import Checkpoint
from codeagent.transparency.findings import Code
from codeagent.transparency.keys import LogKeys
from codeagent.transparency.sealer import Sealer
from tests.integration.transparency.sealed import FOREIGN_KEY, KEY, KEYS, ORIGIN
from tests.integration.transparency.tamper.attack import Attack, event_at, rewrite

Connection = asyncpg.Connection
_GONE = (
    "TRUNCATE audit_leaves",
    "TRUNCATE audit_checkpoints",
    "TRUNCATE audit_tiles",
)
_MOVABLE = "ALTER TABLE events ALTER COLUMN global_position DROP IDENTITY"
_CUT_TAIL = (
    "DELETE FROM audit_leaves WHERE leaf_index >= 298",
    "DELETE FROM audit_checkpoints WHERE number = 4",
    "UPDATE audit_tiles SET hashes = substring(hashes FROM 1 FOR 42 * 32) WHERE level = 0 AND tile_index = 1",
)


def turned(level: int, tile: int, place: int) -> str:
    """Changes a hash of a tile."""
    hashed = f"sha256(substring(hashes FROM {place * 32 + 1} FOR 32))"
    return (
        f"UPDATE audit_tiles SET hashes = overlay(hashes PLACING {hashed} FROM {place * 32 + 1}) "
        f"WHERE (level, tile_index) = ({level}, {tile})"
    )


def swapped(column: str, one: int, other: int) -> str:
    """Swaps a column of two events, by their positions."""
    return (
        f"UPDATE events e SET {column} = o.{column} FROM events o WHERE (e.global_position, o.global_position) "
        f"IN (({one}, {other}), ({other}, {one}))"
    )


async def lie(connection: Connection) -> None:
    await rewrite(connection, 3, data=b'{"attempt":9}')


async def lie_in_the_tile_as_well(connection: Connection) -> None:
    await lie(connection)
    leaf = (await event_at(connection, 3)).leaf_hash.hex()
    await connection.execute(
        f"UPDATE audit_tiles SET hashes = overlay(hashes PLACING '\\x{leaf}' FROM 65) WHERE (level, tile_index) = (0, 0)"
    )


async def insert(connection: Connection, position: int | None, transaction_of: int, version: int) -> None:
    """A plausible event, that claims to be as old as another."""
    await connection.execute(
        """INSERT INTO events (global_position, transaction_id, stream_id, stream_version, event_id, event_type,
               schema_version, tenant_id, data, data_digest, metadata, occurred_at, leaf_hash)
           OVERRIDING SYSTEM VALUE
           SELECT coalesce($1, global_position), transaction_id, stream_id || '-x', $3, gen_random_uuid(), event_type,
                  schema_version, tenant_id, data, data_digest, metadata, occurred_at, leaf_hash
           FROM events WHERE global_position = $2""",
        position,
        transaction_of,
        version,
    )
    inserted = await connection.fetchval("SELECT global_position FROM events WHERE stream_id LIKE '%-x'")
    await rewrite(connection, inserted)


async def insert_in_the_middle(connection: Connection) -> None:
    await insert(connection, -7, 3, 1)


async def insert_with_a_wrong_leaf(connection: Connection) -> None:
    await insert(connection, -7, 3, 1)
    await connection.execute("UPDATE events SET leaf_hash = sha256('') WHERE global_position = -7")


async def insert_into_the_map(connection: Connection) -> None:
    await connection.execute("DELETE FROM events WHERE global_position = 3")
    await insert(connection, 3, 4, 1)
    await connection.execute(
        "UPDATE audit_leaves SET event_id = (SELECT event_id FROM events WHERE global_position = 3) WHERE leaf_index = 2"
    )


async def sign_with_another_key(connection: Connection) -> None:
    root = await connection.fetchval("SELECT root FROM audit_checkpoints WHERE number = 4")
    note = Checkpoint(ORIGIN, 302, root).signed([FOREIGN_KEY])
    await connection.execute("UPDATE audit_checkpoints SET note = $1 WHERE number = 4", note)


async def sign_for_another_log(connection: Connection) -> None:
    root = await connection.fetchval("SELECT root FROM audit_checkpoints WHERE number = 4")
    note = Checkpoint("elsewhere.example", 302, root).signed([KEY])
    await connection.execute("UPDATE audit_checkpoints SET note = $1 WHERE number = 4", note)


async def sign_another_root(connection: Connection) -> None:
    """With the key of the log, as one who has stolen it."""
    root = sha256(b"another history").digest()
    note = Checkpoint(ORIGIN, 298, root).signed([KEY])
    await connection.execute("UPDATE audit_checkpoints SET note = $1, root = $2 WHERE number = 3", note, root)


async def seal_anew(connection: Connection, keys: LogKeys) -> None:
    for statement in _GONE:
        await connection.execute(statement)
    sealer = Sealer(None, keys)  # type: ignore[arg-type]  # it works over the connection of the attack
    await sealer._seal(connection)  # type: ignore[arg-type]


async def rewrite_history_without_the_key(connection: Connection) -> None:
    await lie(connection)
    await seal_anew(connection, LogKeys(ORIGIN, (FOREIGN_KEY,), (FOREIGN_KEY.verifier,)))


async def rewrite_history_with_the_key(connection: Connection) -> None:
    await lie(connection)
    await seal_anew(connection, KEYS)


async def delete_and_close_the_gap(connection: Connection) -> None:
    """Deletes a run's last event so that its stream has no hole, and renumbers the entries after it."""
    await connection.execute("DELETE FROM events WHERE global_position = 8")
    await connection.execute("DELETE FROM audit_leaves WHERE leaf_index = 7")
    await connection.execute("UPDATE audit_leaves SET leaf_index = leaf_index + 10000 WHERE leaf_index > 7")
    await connection.execute("UPDATE audit_leaves SET leaf_index = leaf_index - 10001 WHERE leaf_index > 10000")


ATTACKS = (
    # what an event says
    Attack("data", "UPDATE events SET data = '{\"attempt\":9}' WHERE global_position = 3", [(Code.DATA_CHANGED, "entry 2 ")]),
    Attack("data of an event that is not sealed", "UPDATE events SET data = '{\"attempt\":9}' WHERE global_position = 304", [(Code.DATA_CHANGED, "version 2")]),
    Attack("data gone", "UPDATE events SET data = NULL WHERE global_position = 3", [(Code.DATA_CHANGED, "entry 2 "), (Code.EVENT_UNREADABLE, "entry 2 ")]),
    Attack("data and its digest", "UPDATE events SET data = '{\"attempt\":9}', data_digest = sha256('{\"attempt\":9}') WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 ")]),
    Attack("digest", "UPDATE events SET data_digest = sha256(data_digest) WHERE global_position = 3", [(Code.DATA_CHANGED, "entry 2 "), (Code.ATTRIBUTES_CHANGED, "entry 2 ")]),
    Attack("data, digest and leaf hash", lie, [(Code.EVENT_REPLACED, "entry 2 ")]),
    Attack("data, digest, leaf hash and tile", lie_in_the_tile_as_well, [(Code.CHECKPOINT_CONTRADICTS, "checkpoint 1"), (Code.TILE_CHANGED, "tile 1/000")]),
    # who, when, where
    Attack("moment", "UPDATE events SET occurred_at = occurred_at - interval '1 day' WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 ")]),
    Attack("author", "UPDATE events SET metadata = metadata || '{\"authid\": \"usr_b\"}' WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 ")]),
    Attack("tenant", "UPDATE events SET tenant_id = 'ten_other' WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 ")]),
    Attack("id", "UPDATE events SET event_id = gen_random_uuid() WHERE global_position = 3", [(Code.EVENT_DELETED, "entry 2 ")]),
    Attack("id, in the map as well", ("UPDATE events SET event_id = 'abababab-abab-4bab-8bab-abababababab' WHERE global_position = 3", "UPDATE audit_leaves SET event_id = 'abababab-abab-4bab-8bab-abababababab' WHERE leaf_index = 2"), [(Code.ATTRIBUTES_CHANGED, "entry 2 ")]),
    Attack("key of its data", "UPDATE events SET key_id = 'k', sealed_digest = sha256(''), data = NULL WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 "), (Code.DATA_CHANGED, "entry 2 "), (Code.EVENT_UNREADABLE, "entry 2 "), (Code.CONTENT_MISSING, "position 3")]),
    Attack("type that is known", "UPDATE events SET event_type = 'run.resumed' WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 "), (Code.EVENT_UNREADABLE, "entry 2 ")]),
    Attack("type that is unknown", "UPDATE events SET event_type = 'run.exploded' WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 "), (Code.EVENT_UNREADABLE, "run.exploded")]),
    Attack("version that is unknown", "UPDATE events SET schema_version = 99 WHERE global_position = 3", [(Code.ATTRIBUTES_CHANGED, "entry 2 "), (Code.EVENT_UNREADABLE, "entry 2 ")]),
    Attack("leaf hash", "UPDATE events SET leaf_hash = sha256(leaf_hash) WHERE global_position = 3", [(Code.LEAF_HASH_CHANGED, "entry 2 ")]),
    # what belongs to a person
    Attack("content taken away", "UPDATE events SET sealed = NULL WHERE global_position = 1", [(Code.CONTENT_MISSING, "position 1")]),
    Attack("content of everybody taken away", "UPDATE events SET sealed = NULL", [(Code.CONTENT_MISSING, "position 6"), (Code.CONTENT_MISSING, "position 303")]),
    Attack("content taken away, and an erasure noted", ("INSERT INTO erasures (id, tenant_id, subject_id, key_id, closed_at, shredded_at) SELECT 'prv_x', tenant_id, 'usr_a', key_id, now(), now() FROM events WHERE global_position = 1", "UPDATE events SET sealed = NULL WHERE global_position = 1"), [(Code.CONTENT_MISSING, "position 1")]),
    Attack("content replaced", "UPDATE events SET sealed = sha256(sealed) WHERE global_position = 1", [(Code.DATA_CHANGED, "entry 0 ")]),
    Attack("content and its digest replaced", "UPDATE events SET sealed = sha256(sealed), sealed_digest = sha256(sha256(sealed)) WHERE global_position = 1", [(Code.DATA_CHANGED, "entry 0 ")]),
    Attack("content that another event has", swapped("sealed", 1, 6), [(Code.DATA_CHANGED, "entry 0 "), (Code.DATA_CHANGED, "entry 5 ")]),
    Attack("whose content it is", "UPDATE events SET key_id = 'sk_another' WHERE global_position = 1", [(Code.ATTRIBUTES_CHANGED, "entry 0 ")]),
    Attack("what is public beside the content", "UPDATE events SET data = convert_to(replace(convert_from(data, 'UTF8'), 'coder', 'decoy'), 'UTF8') WHERE global_position = 1", [(Code.DATA_CHANGED, "entry 0 ")]),
    # rows that are none
    Attack("leaf hash that is none", ("ALTER TABLE events DROP CONSTRAINT events_leaf_hash_check", "UPDATE events SET leaf_hash = '' WHERE global_position = 3"), [(Code.ROW_CORRUPT, "entry 2 ")]),
    Attack("moment that no event has", "UPDATE events SET occurred_at = '20000-01-01Z' WHERE global_position = 3", [(Code.ROW_CORRUPT, "entry 2 ")]),
    Attack("moment without end", "UPDATE events SET occurred_at = 'infinity' WHERE global_position = 304", [(Code.ROW_CORRUPT, "version 2")]),
    Attack("metadata that is none", "UPDATE events SET metadata = '[1]' WHERE global_position = 3", [(Code.ROW_CORRUPT, "entry 2 ")]),
    # gone
    Attack("event in the middle of its stream", "DELETE FROM events WHERE global_position = 3", [(Code.EVENT_DELETED, "entry 2 "), (Code.STREAM_BROKEN, "version 3")]),
    Attack("last event of its stream", "DELETE FROM events WHERE global_position = 5", [(Code.EVENT_DELETED, "entry 4 ")]),
    Attack("whole stream", "DELETE FROM events WHERE global_position BETWEEN 6 AND 8", [(Code.EVENT_DELETED, "entry 5 "), (Code.EVENT_DELETED, "entry 6 "), (Code.EVENT_DELETED, "entry 7 ")]),
    Attack("all events", "TRUNCATE events", [(Code.EVENT_DELETED, "entry 0 "), (Code.EVENT_DELETED, "entry 301 ")]),
    Attack("event and its entry in the map", ("DELETE FROM events WHERE global_position = 8", "DELETE FROM audit_leaves WHERE leaf_index = 7"), [(Code.LEAF_MISSING, "entry 7")]),
    Attack("event, and the entries after it moved up", delete_and_close_the_gap, [(Code.EVENT_REPLACED, "entry 7 "), (Code.CHECKPOINT_CHANGED, "checkpoint 2"), (Code.LEAF_MISSING, "entry 301")]),
    Attack("newest events, entries stay", "DELETE FROM events WHERE global_position > 298", [(Code.EVENT_DELETED, "entry 301 ")]),
    Attack("newest events and entries, checkpoint stays", ("DELETE FROM events WHERE global_position > 298", *_CUT_TAIL[::2]), [(Code.LOG_TRUNCATED, "checkpoint 4")]),
    Attack("newest events with all that tells of them", ("DELETE FROM events WHERE global_position > 298", *_CUT_TAIL), [(Code.LOG_TRUNCATED, "302 entries")], anchored=True),
    Attack("all that tells of the newest events", _CUT_TAIL, [(Code.LOG_TRUNCATED, "302 entries")], anchored=True),
    # put in
    Attack("event among sealed ones", insert_in_the_middle, [(Code.EVENT_INSERTED, "-x version 1")]),
    Attack("event among sealed ones with a wrong hash", insert_with_a_wrong_leaf, [(Code.EVENT_INSERTED, "-x version 1"), (Code.ATTRIBUTES_CHANGED, "-x version 1")]),
    Attack("event in place of another", insert_into_the_map, [(Code.EVENT_REPLACED, "entry 2 "), (Code.STREAM_BROKEN, "version 3")]),
    # put elsewhere
    Attack("positions swapped", (_MOVABLE, "UPDATE events SET global_position = -1 WHERE global_position = 3", "UPDATE events SET global_position = 3 WHERE global_position = 4", "UPDATE events SET global_position = 4 WHERE global_position = -1") , [(Code.EVENT_MOVED, "entry 2 "), (Code.EVENT_MOVED, "entry 3 ")]),
    Attack("position", (_MOVABLE, "UPDATE events SET global_position = 9000 WHERE global_position = 3"), [(Code.EVENT_MOVED, "position 9000"), (Code.EVENT_INSERTED, "version 3")]),
    Attack("place in the order", "UPDATE events SET transaction_id = '1' WHERE global_position = 20", [(Code.EVENT_MOVED, "entry 19 ")]),
    Attack("versions swapped", ("UPDATE events SET stream_version = 99 WHERE global_position = 3", "UPDATE events SET stream_version = 3 WHERE global_position = 4", "UPDATE events SET stream_version = 4 WHERE global_position = 3"), [(Code.ATTRIBUTES_CHANGED, "entry 2 "), (Code.ATTRIBUTES_CHANGED, "entry 3 ")]),
    Attack("stream", "UPDATE events SET stream_id = 'run-other', stream_version = 1 WHERE global_position = 5", [(Code.ATTRIBUTES_CHANGED, "entry 4 ")]),
    Attack("entries swapped in the map", ("UPDATE audit_leaves SET leaf_index = 10000 WHERE leaf_index = 2", "UPDATE audit_leaves SET leaf_index = 2 WHERE leaf_index = 3", "UPDATE audit_leaves SET leaf_index = 3 WHERE leaf_index = 10000"), [(Code.EVENT_REPLACED, "entry 2 "), (Code.EVENT_REPLACED, "entry 3 "), (Code.EVENT_MOVED, "entry 3 ")]),
    # the map and the tiles
    Attack("entry in the map", "DELETE FROM audit_leaves WHERE leaf_index = 2", [(Code.LEAF_MISSING, "entry 2")]),
    Attack("whole map", "TRUNCATE audit_leaves", [(Code.LEAF_MISSING, "entries 0 to 255"), (Code.LEAF_MISSING, "entries 256 to 301")]),
    Attack("hash of an entry", turned(0, 0, 2), [(Code.TILE_CHANGED, "tile 0/000"), (Code.TILE_CHANGED, "entry 2 ")]),
    Attack("hash of a new entry", turned(0, 1, 45), [(Code.TILE_CHANGED, "tile 0/001")]),
    Attack("hash of the level above", turned(1, 0, 0), [(Code.TILE_CHANGED, "tile 1/000")]),
    Attack("tile of entries", "DELETE FROM audit_tiles WHERE (level, tile_index) = (0, 0)", [(Code.TILE_MISSING, "tile 0/000")]),
    Attack("tile cut", "UPDATE audit_tiles SET hashes = substring(hashes FROM 1 FOR 320) WHERE (level, tile_index) = (0, 1)", [(Code.TILE_MISSING, "entries 266 to 301")]),
    Attack("tile of the level above", "DELETE FROM audit_tiles WHERE level = 1", [(Code.TILE_MISSING, "tile 1/000")]),
    Attack("tile too much", "INSERT INTO audit_tiles SELECT 2, 0, sha256('')", [(Code.TILE_SURPLUS, "tile 2/000")]),
    Attack("hash too much", "UPDATE audit_tiles SET hashes = hashes || sha256('') WHERE (level, tile_index) = (0, 1)", [(Code.TILE_SURPLUS, "tile 0/001")]),
    # what was signed
    Attack("checkpoint gone", "DELETE FROM audit_checkpoints WHERE number = 2", [(Code.CHECKPOINT_MISSING, "checkpoint 2")]),
    Attack("newest checkpoint gone", "DELETE FROM audit_checkpoints WHERE number = 4", [(Code.CHECKPOINT_MISSING, "entries 298 to 301")]),
    Attack("all checkpoints gone", "TRUNCATE audit_checkpoints", [(Code.CHECKPOINT_MISSING, "entries 0 to 301")]),
    Attack("note changed", "UPDATE audit_checkpoints SET note = replace(note, E'\\n8\\n', E'\\n9\\n') WHERE number = 2", [(Code.CHECKPOINT_WRONG_SIGNATURE, "checkpoint 2")]),
    Attack("note that is none", "UPDATE audit_checkpoints SET note = 'x' WHERE number = 2", [(Code.CHECKPOINT_MALFORMED, "checkpoint 2")]),
    Attack("root changed", "UPDATE audit_checkpoints SET root = sha256(root) WHERE number = 2", [(Code.CHECKPOINT_CHANGED, "checkpoint 2")]),
    Attack("place changed", "UPDATE audit_checkpoints SET global_position = 1 WHERE number = 2", [(Code.CHECKPOINT_CHANGED, "checkpoint 2")]),
    Attack("older checkpoint in place of a newer", "UPDATE audit_checkpoints c SET note = o.note, root = o.root FROM audit_checkpoints o WHERE c.number = 4 AND o.number = 3", [(Code.CHECKPOINT_CHANGED, "checkpoint 4"), (Code.CHECKPOINT_MISSING, "entries 298 to 301")]),
    Attack("checkpoint of another key", sign_with_another_key, [(Code.CHECKPOINT_UNKNOWN_KEY, "checkpoint 4"), (Code.CHECKPOINT_MISSING, "entries 298 to 301")]),
    Attack("checkpoint of another log", sign_for_another_log, [(Code.CHECKPOINT_OTHER_LOG, "checkpoint 4"), (Code.CHECKPOINT_MISSING, "entries 298 to 301")]),
    Attack("checkpoint of another history", sign_another_root, [(Code.CHECKPOINT_CONTRADICTS, "checkpoint 3")]),
    # everything at once
    Attack("history rewritten without the key", rewrite_history_without_the_key, [(Code.CHECKPOINT_UNKNOWN_KEY, "checkpoint 1"), (Code.CHECKPOINT_MISSING, "entries 0 to 303")]),
    Attack("history rewritten with the key", rewrite_history_with_the_key, [(Code.ANCHOR_CONTRADICTS, "8")], anchored=True),
    Attack("all of the proof gone", _GONE, [(Code.LOG_TRUNCATED, "8")], anchored=True),
)  # fmt: skip
