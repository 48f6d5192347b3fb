"""Sealed content that is gone: rightly so where the log itself says that its subject was erased, or that the content of
its run was retired, and else not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from codeagent.eventlog.log import Cursor
from codeagent.messages.privacy_events import ContentRetired, SubjectErased
from codeagent.transparency import tables
from codeagent.transparency.findings import Code, Discrepancy
from codeagent.transparency.rows import problems_in

_PAGE = 1_000
_FACTS = f"SELECT {tables.EVENT} FROM events e WHERE e.event_type = $1"  # noqa: S608  constants
_GONE = """SELECT global_position, transaction_id::text AS tid, stream_id, stream_version, event_id, key_id,
    tenant_id, metadata ->> 'runid' AS run_id FROM events
    WHERE key_id IS NOT NULL AND sealed IS NULL AND key_id <> ALL ($1)
        AND (transaction_id, global_position) > ($2::text::xid8, $3::bigint)
        AND ($4::text IS NULL OR (transaction_id, global_position) <= ($4::text::xid8, $5::bigint))
    ORDER BY transaction_id, global_position LIMIT $6"""


async def missing_content(queries: tables.Queries, after: Cursor, until: Cursor | None) -> AsyncIterator[Discrepancy]:
    """Of events beyond `after`, up to and with `until`."""
    erased = [str(data["key_id"]) for _, data in await _said(queries, SubjectErased.NAME)]
    facts = await _said(queries, ContentRetired.NAME)
    retired = {(tenant_id, str(run_id)) for tenant_id, data in facts for run_id in data["run_ids"]}
    last = None if until is None else str(until.transaction_id)
    while True:
        place = 0 if until is None else until.global_position
        rows = await queries.fetch(_GONE, erased, str(after.transaction_id), after.global_position, last, place, _PAGE)
        for row in rows:
            if (row["tenant_id"], row["run_id"]) in retired:
                continue
            where = f"event {row['event_id']}, position {row['global_position']}"
            detail = (
                f"{row['stream_id']} version {row['stream_version']} has lost its sealed content, "
                f"and the log does not say that the subject of {row['key_id']} was erased, or the run retired"
            )
            yield Discrepancy(Code.CONTENT_MISSING, where, detail)
        if len(rows) < _PAGE:
            return
        after = Cursor(int(rows[-1]["tid"]), rows[-1]["global_position"])


async def _said(queries: tables.Queries, fact: str) -> list[tuple[str, dict[str, Any]]]:
    """What all sound facts of that name say, with whose they are."""
    rows = await queries.fetch(_FACTS, fact)
    return [(row["tenant_id"], orjson.loads(row["data"])) for row in rows if not problems_in(row)]
