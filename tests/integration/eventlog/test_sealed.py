"""Every sealed column of the schema is known to whoever replaces key-encryption keys."""

from __future__ import annotations

import string

from codeagent.eventlog.database import Database
from codeagent.eventlog.sealed import SEALED_COLUMNS

NOT_SEALED = {
    "audit_checkpoints.root",
    "audit_tiles.hashes",
    "effects.command",
    "effects.memo",
    "events.data",
    "events.leaf_hash",
    "events.sealed",  # under subjects' keys
    "login_throttles.key",
    "outbox.value",
    "refresh_tokens.salt",
    "snapshots.value",  # under subjects' keys
}
"""Columns of bytes that hold no secret of ours; those called digest need no line. A new column is sealed and
registered, or is listed here."""


async def test_a_column_of_bytes_is_registered_as_sealed_or_known_not_to_be(database: Database) -> None:
    rows = await database.fetch(
        """SELECT c.table_name || '.' || c.column_name AS name
           FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
           WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.udt_name = 'bytea'"""
    )
    columns = {row["name"] for row in rows if not row["name"].endswith("digest")}
    assert columns == NOT_SEALED | {f"{item.table}.{item.column}" for item in SEALED_COLUMNS}


async def test_a_registered_column_names_its_primary_key_and_columns_that_exist(database: Database) -> None:
    for item in SEALED_COLUMNS:
        rows = await database.fetch(
            """SELECT a.attname FROM pg_index i
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
               WHERE i.indrelid = $1::text::regclass AND i.indisprimary""",
            item.table,
        )
        assert {row["attname"] for row in rows} == set(item.keys)
        columns = await database.fetch(
            "SELECT column_name AS name FROM information_schema.columns WHERE table_name = $1", item.table
        )
        named = {name for _, name, *_ in string.Formatter().parse(item.place) if name}
        assert named | {item.column} <= {row["name"] for row in columns}
