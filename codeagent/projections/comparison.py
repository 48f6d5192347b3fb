"""How the rows that are read differ from those that the log makes, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from codeagent.eventlog.database import Connection
from codeagent.projections.projection import Kept

MOST_ROWS = 100
"""That are named of one table; the others are counted."""


@dataclass(frozen=True, slots=True)
class WrongRow:
    """`key` tells which, as text; `columns` are those with another value than the log gives them."""

    key: str
    is_missing: bool
    is_surplus: bool
    columns: Sequence[str] = ()
    """Of a row that is there and should be otherwise."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Between the rows of a table and those that the log makes: rows that are `missing`, and rows that are `surplus`.
    One with another value is both. `rows` are the first of them, by their keys."""

    table: str
    missing: int
    surplus: int
    rows: Sequence[WrongRow] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus)

    def __str__(self) -> str:
        examples = f" ({'; '.join(row.key for row in self.rows[:5])})" if self.rows else ""
        return f"{self.table}: {self.missing} rows missing, {self.surplus} too many{examples}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, and the ids of its events."""

    run: str
    events: Sequence[UUID]


_COMPARE = """
WITH s AS (SELECT $1::text AS run, $2::uuid[] AS events),
     made AS (SELECT t.* FROM pg_temp.{table} t, s WHERE ({condition}) AND {stands}),
     found AS (SELECT t.* FROM public.{table} t, s WHERE ({condition}) AND {stands}),
     missing AS MATERIALIZED (SELECT * FROM made EXCEPT ALL SELECT * FROM found),
     surplus AS MATERIALIZED (SELECT * FROM found EXCEPT ALL SELECT * FROM made),
     wrong AS (SELECT key, to_jsonb(m.made) AS made, to_jsonb(f.found) AS found
               FROM (SELECT {key} AS key, m AS made FROM missing m) m
               FULL JOIN (SELECT {key} AS key, f AS found FROM surplus f) f USING (key)
               ORDER BY key LIMIT {most})
SELECT (SELECT count(*) FROM missing) AS missing, (SELECT count(*) FROM surplus) AS surplus,
       key, found IS NULL AS is_missing, made IS NULL AS is_surplus,
       ARRAY(SELECT key FROM jsonb_each(made) m JOIN jsonb_each(found) f USING (key) WHERE m.value <> f.value
             ORDER BY key) AS columns
FROM (SELECT) always LEFT JOIN wrong ON true ORDER BY key"""


async def compare(session: Connection, kept: Kept, sample: Sample | None = None) -> Difference:
    """Compares the real rows of a table with those of a session in which it is covered; all of them, or those of a
    sample."""
    condition = "true" if sample is None else kept.sample
    assert condition is not None, "its rows have no samples"
    query = _COMPARE.format(
        table=kept.table,
        condition=condition,
        stands=kept.stands,
        key=" || ' ' || ".join(f"coalesce({column}::text, '-')" for column in kept.key),
        most=MOST_ROWS,
    )
    rows = await session.fetch(query, *((None, None) if sample is None else (sample.run, sample.events)))
    wrong = [WrongRow(*list(row.values())[2:]) for row in rows if row["key"] is not None]
    if sample is not None and kept.shared:
        wrong = [row for row in wrong if not row.is_surplus]
        return Difference(kept.table, rows[0]["missing"], 0, wrong)
    return Difference(kept.table, rows[0]["missing"], rows[0]["surplus"], wrong)


async def put_right(session: Connection, kept: Kept) -> None:
    """Makes the real rows those of the session. Readers see either the old ones or the new ones; rows that are the same
    are not touched. Rows are compared as text, since that can be hashed."""
    same, table = "t::text = b::text", kept.table
    await session.execute(
        f"DELETE FROM public.{table} t "  # noqa: S608  constants
        f"WHERE {kept.stands} AND NOT EXISTS (SELECT FROM pg_temp.{table} b WHERE {same})"
    )
    await session.execute(
        f"INSERT INTO public.{table} SELECT t.* FROM pg_temp.{table} t "  # noqa: S608  constants
        f"WHERE {kept.stands} AND NOT EXISTS (SELECT FROM public.{table} b WHERE {same})"
    )
