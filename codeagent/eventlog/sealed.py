"""Sealed columns: which there are, and how they get under the newest key-encryption key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from codeagent.encryption import NotOpened, SecretBox, key_of
from codeagent.eventlog.database import Database, Row

BATCH = 200


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A `bytea` column whose values a `SecretBox` has sealed. NULL is no value.

    `keys` are the columns of the primary key. `place` names the columns that a value is bound to, as in
    `{tenant_id}/webhooks/{id}/secret`; it has to give what the code that seals gives.
    """

    table: str
    keys: tuple[str, ...]
    column: str
    place: str


SEALED_COLUMNS: tuple[SealedColumn, ...] = (
    SealedColumn("users", ("id",), "email_sealed", "users/{id}/email"),
    SealedColumn("signing_keys", ("kid",), "private_sealed", "signing_keys/{kid}/private"),
    SealedColumn("git_credentials", ("project_id",), "token_sealed", "git_credentials/{project_id}/{repository}"),
    SealedColumn("instance_secrets", ("name",), "sealed", "instance_secrets/{name}"),
    SealedColumn("provider_credentials", ("id",), "secret_sealed", "provider_credentials/{provider}/{id}"),
    SealedColumn("response_cache", ("tenant_id", "key"), "reply_sealed", "{tenant_id}/response_cache/{key}"),
    SealedColumn("dead_letters", ("id",), "record_sealed", "dead_letters/{id}"),
    SealedColumn("webhooks", ("id",), "secret", "{tenant_id}/webhooks/{id}/secret"),
    SealedColumn("webhooks", ("id",), "previous_secret", "{tenant_id}/webhooks/{id}/secret"),
)
"""Every sealed column of the schema. Whoever adds such a column adds a line here, else its values are lost with the
key that sealed them."""


@dataclass(slots=True)
class Resealed:
    """What was found in a column: `resealed` values, and how many each key has sealed now. `unreadable` values have
    a key that is not at hand, or were changed."""

    column: SealedColumn
    resealed: int = 0
    unreadable: int = 0
    by_key: Counter[str] = field(default_factory=Counter)


async def reseal(database: Database, box: SecretBox, columns: Sequence[SealedColumn]) -> list[Resealed]:
    """Puts every value under the box's first key. May be repeated, and run while others read and write: what they
    write meanwhile is not lost."""
    return [await _column(database, box, column) for column in columns]


async def _column(database: Database, box: SecretBox, column: SealedColumn) -> Resealed:
    done = Resealed(column)
    after: tuple[Any, ...] = ()
    while rows := await _page(database, column, after):
        for row in rows:
            await _value(database, box, column, row, done)
        after = tuple(rows[-1][key] for key in column.keys)
    return done


async def _page(database: Database, column: SealedColumn, after: tuple[Any, ...]) -> Sequence[Row]:
    keys = ", ".join(f'"{key}"' for key in column.keys)
    places = ", ".join(f"${number}" for number in range(1, len(after) + 1))
    beyond = f"AND ({keys}) > ({places})" if after else ""
    return await database.fetch(
        f'SELECT * FROM "{column.table}" WHERE "{column.column}" IS NOT NULL {beyond} '  # noqa: S608  names of our own
        f"ORDER BY {keys} LIMIT {BATCH}",
        *after,
    )


async def _value(database: Database, box: SecretBox, column: SealedColumn, row: Row, done: Resealed) -> None:
    sealed: bytes | None = row[column.column]
    try:
        while sealed is not None and not box.is_current(sealed):
            renewed = box.reseal(sealed, column.place.format_map(dict(row)))
            if await _replace(database, column, row, sealed, renewed):
                done.resealed += 1
                sealed = renewed
            else:
                sealed = await _read(database, column, row)  # somebody wrote meanwhile, perhaps under an older key
        if sealed is not None:
            done.by_key[key_of(sealed)] += 1
    except NotOpened:
        done.unreadable += 1


async def _replace(database: Database, column: SealedColumn, row: Row, sealed: bytes, renewed: bytes) -> bool:
    """Whether the value was still the one that was read."""
    written = await database.write(
        f'UPDATE "{column.table}" SET "{column.column}" = $1 '  # noqa: S608  names of our own
        f'WHERE "{column.column}" = $2 AND {_same(column, 3)} RETURNING 1',
        renewed,
        sealed,
        *(row[key] for key in column.keys),
    )
    return bool(written)


async def _read(database: Database, column: SealedColumn, row: Row) -> bytes | None:
    found = await database.fetch(
        f'SELECT "{column.column}" FROM "{column.table}" WHERE {_same(column, 1)}',  # noqa: S608  names of our own
        *(row[key] for key in column.keys),
    )
    return found[0][0] if found else None


def _same(column: SealedColumn, first: int) -> str:
    return " AND ".join(f'"{key}" = ${number}' for number, key in enumerate(column.keys, start=first))
