"""What a tenant has used, added up by what somebody asks for."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import orjson

from codeagent.cursors import malformed_cursor
from codeagent.eventlog.database import Database, Row
from codeagent.projections.tally import COUNTERS, Tally


class Dimension(StrEnum):
    """What use can be told apart by."""

    DAY = "day"
    MODEL = "model"
    PROVIDER = "provider"
    PROJECT = "project"
    SESSION = "session"
    PRINCIPAL = "principal"


_KEYS = {
    Dimension.DAY: "u.day::text",
    Dimension.MODEL: "u.model",
    Dimension.PROVIDER: "split_part(u.model, '/', 1)",
    Dimension.PROJECT: "coalesce({owner}.project_id, '')",
    Dimension.SESSION: "coalesce(o.session_id, '')",
    Dimension.PRINCIPAL: "coalesce({owner}.principal_id, '')",
}
"""Every key is a text, and none is null: pages continue after the keys of their last row."""
_SUMS = ", ".join(f"coalesce(sum(u.{name}), 0) AS {name}" for name in COUNTERS)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Days are those of UTC, both included. What is None is not asked for; `group_by` is not empty."""

    first: date
    last: date
    group_by: tuple[Dimension, ...]
    model: str | None = None
    project_id: str | None = None
    session_id: str | None = None
    principal_id: str | None = None

    @property
    def by_run(self) -> bool:
        """Days do not know of sessions: there are too many of them."""
        return self.session_id is not None or Dimension.SESSION in self.group_by


@dataclass(frozen=True, slots=True)
class UsageRow:
    """`keys` in the order of `group_by`; an empty one stands for none."""

    keys: tuple[str, ...]
    tally: Tally


@dataclass(frozen=True, slots=True)
class UsageReport:
    """`totals` are those of the whole range, whatever the page shows of it."""

    rows: Sequence[UsageRow]
    totals: Tally
    next_cursor: str | None


async def usage_report(
    database: Database, tenant_id: str, query: UsageQuery, *, after: str | None, limit: int
) -> UsageReport:
    """One page, ordered by its keys. Raises `Rejected` for a malformed cursor."""
    source, owner = _source(query)
    keys = [_KEYS[dimension].format(owner=owner) for dimension in query.group_by]
    begin = None if after is None else _parse(after, len(keys))
    wanted = (
        query.first,
        query.last,
        query.model,
        query.project_id,
        query.principal_id,
        query.session_id,
    )
    where = f"""u.day BETWEEN $1 AND $2 AND ($3::text IS NULL OR u.model = $3)
        AND ($4::text IS NULL OR {owner}.project_id = $4) AND ($5::text IS NULL OR {owner}.principal_id = $5)
        AND ($6::text IS NULL OR {"o.session_id = $6" if query.by_run else "false"})"""
    listed = ", ".join(keys)
    rows = await database.fetch(
        f"""SELECT ARRAY[{listed}] AS keys, {_SUMS} FROM {source} WHERE {where}
                  AND ($7::text[] IS NULL OR ARRAY[{listed}] COLLATE "C" > $7)
            GROUP BY ARRAY[{listed}] ORDER BY ARRAY[{listed}] COLLATE "C" LIMIT $8""",  # noqa: S608  constants
        *wanted,
        begin,
        limit + 1,
        tenant=tenant_id,
    )
    totals = await database.fetch(f"SELECT {_SUMS} FROM {source} WHERE {where}", *wanted, tenant=tenant_id)  # noqa: S608
    found = [UsageRow(tuple(row["keys"]), _tally(row)) for row in rows[:limit]]
    return UsageReport(found, _tally(totals[0]), _cursor(found[-1].keys) if len(rows) > limit else None)


def _source(query: UsageQuery) -> tuple[str, str]:
    """The table, and the name by which it knows whose use it is."""
    if query.by_run:
        return "usage_by_run u LEFT JOIN usage_runs o USING (run_id)", "o"
    return "usage_by_day u", "u"


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What one run has used, by model. `settled`: the run has ended, and its end has been counted."""

    models: Sequence[UsageRow]
    settled: bool


async def usage_of_run(database: Database, tenant_id: str, run_id: str) -> RunUsage:
    """Nothing for a run that nothing is known of."""
    rows = await database.fetch(
        f"SELECT u.model, {_SUMS} FROM usage_by_run u WHERE u.run_id = $1 GROUP BY u.model ORDER BY u.model",  # noqa: S608
        run_id,
        tenant=tenant_id,
    )
    ended = await database.fetch("SELECT FROM usage_runs WHERE run_id = $1 AND NOT open", run_id, tenant=tenant_id)
    return RunUsage([UsageRow((row["model"],), _tally(row)) for row in rows], settled=bool(ended))


def _tally(row: Row) -> Tally:
    # Sums of bigint are numeric to the database.
    counted: dict[str, Any] = {name: int(row[name]) for name in COUNTERS if name != "cost_usd"}
    return Tally(**counted, cost_usd=row["cost_usd"])


def _cursor(keys: Sequence[str]) -> str:
    return urlsafe_b64encode(orjson.dumps(keys)).decode().rstrip("=")


def _parse(cursor: str, count: int) -> list[str]:
    try:
        keys = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        keys = None
    if not isinstance(keys, list) or len(keys) != count or not all(_is_key(key) for key in keys):
        raise malformed_cursor()
    return keys


def _is_key(key: object) -> bool:
    return isinstance(key, str) and "\x00" not in key
