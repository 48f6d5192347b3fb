"""What an erasure finds and removes in the tables, by the key that it is sealed with."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Change
from codeagent.eventlog.log import COLUMNS
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.messages.ids import INSTALLATION
from codeagent.messages.values import ENDING_EVENTS
from codeagent.projections.artifact_references import ANYTHING
from codeagent.subjects.key import named_prefix

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Erasure:
    """One subject's, as far as it has come. `id` is that of the request."""

    id: str
    tenant_id: str
    subject_id: str
    key_id: str | None
    begun_at: datetime
    closed_at: datetime | None
    shredded_at: datetime | None
    completed_at: datetime | None
    runs: list[str]
    counts: dict[str, int]
    certificate: str


def erasure_of(row: Row) -> Erasure:
    return Erasure(**{**dict(row), "counts": orjson.loads(row["counts"])})


async def at_work(database: Database) -> list[Erasure]:
    """Those that are not completed, the oldest first."""
    rows = await database.fetch("SELECT * FROM erasures WHERE completed_at IS NULL ORDER BY begun_at LIMIT 100")
    return [erasure_of(row) for row in rows]


async def note(database: Database, erasure: Erasure, **values: Any) -> None:
    """Writes down how far an erasure has come. Names are ours."""
    assigned = ", ".join(f"{name} = ${n}" for n, name in enumerate(values, 2))
    given = [orjson.dumps(value).decode() if name == "counts" else value for name, value in values.items()]
    await database.write(f"UPDATE erasures SET {assigned} WHERE id = $1", erasure.id, *given)  # noqa: S608  constants


async def note_once(change: Change, erasure: Erasure, column: str, at: datetime, **values: Any) -> bool:
    """Whether this is the first to write down that moment. Names are ours."""
    assigned = "".join(f", {name} = ${n}" for n, name in enumerate(values, 3))
    rows = await change.rows(
        f"UPDATE erasures SET {column} = $2{assigned} WHERE id = $1 AND {column} IS NULL RETURNING id",  # noqa: S608
        erasure.id,
        at,
        *values.values(),
    )
    return bool(rows)


async def runs_at_work(database: Database, tenant_id: str, key_id: str, known: Sequence[str] = ()) -> list[str]:
    """Runs of the key's subject that have not ended, those included that were accepted and are not in the log yet, and
    those `known` from before that have not ended since."""
    rows = await database.fetch(
        """SELECT substr(e.stream_id, 5) AS run_id FROM events e
               WHERE e.key_id = $1 AND e.sealed IS NOT NULL AND e.event_type = 'run.submitted' AND NOT EXISTS (
                   SELECT FROM events x WHERE x.stream_id = e.stream_id AND x.event_type = ANY ($2)
                       AND x.stream_version > 1)
               UNION
               SELECT s.run_id FROM submissions s
               WHERE s.tenant_id = $3 AND starts_with(s.request ->> 'sealed', $4) AND s.accepted
                     AND NOT EXISTS (SELECT FROM events x WHERE x.stream_id = 'run-' || s.run_id
                                     AND x.stream_version <= 2 AND x.event_type = 'run.submitted')
               UNION
               SELECT r.id FROM unnest($5::text[]) AS r (id) WHERE NOT EXISTS (
                   SELECT FROM events x WHERE x.stream_id = 'run-' || r.id AND x.event_type = ANY ($2))""",
        key_id,
        list(ENDING_EVENTS),
        tenant_id,
        _in_base64(key_id),
        list(known),
    )
    return [row["run_id"] for row in rows]


async def remove_ledger_rows(database: Database, erasure: Erasure) -> dict[str, int]:
    """Whatever of the subject is still in the ledgers; how many rows, by table."""
    assert erasure.key_id is not None
    prefix = named_prefix(erasure.key_id)
    sealed = f"substring({{}} FROM 1 FOR {len(prefix)}) = $2"
    tenant = erasure.tenant_id
    runs = await database.fetch(
        "SELECT DISTINCT substr(stream_id, 5) AS id FROM events WHERE key_id = $1 "
        "AND sealed IS NOT NULL AND event_type = 'run.submitted'",
        erasure.key_id,
    )
    statements: Sequence[tuple[str, str, tuple[Any, ...]]] = (
        ("effects", f"tenant_id = $1 AND (key_id = $3 OR {sealed.format('command')})", (prefix, erasure.key_id)),
        # A dead letter that is sent again is the installation's.
        ("outbox", f"tenant_id IN ($1, '{INSTALLATION}') AND {sealed.format('value')}", (prefix,)),
        ("submissions", "tenant_id = $1 AND starts_with(request ->> 'sealed', $2)", (_in_base64(erasure.key_id),)),
        (
            "dead_letters",
            "key_id = $3 OR tenant_id = $1 AND (run_id = ANY ($2) OR author_id = ANY ($2))",
            ([erasure.subject_id, *(row["id"] for row in runs)], erasure.key_id),
        ),
        ("snapshots", f"tenant_id = $1 AND {sealed.format('value')}", (prefix,)),
        ("response_cache", "tenant_id = $1 AND principal_id = $2", (erasure.subject_id,)),
        # Of commands, and of requests that were being answered while all access ended.
        (
            "fact_origins",
            "tenant_id = $1 AND (actor_id = $2 OR recorded_at > $3::timestamptz - interval '1 hour' AND EXISTS ("
            "SELECT FROM events e WHERE e.event_id = fact_origins.event_id AND e.metadata ->> 'authid' = $2))",
            (erasure.subject_id, erasure.begun_at),
        ),
    )
    removed: dict[str, int] = {}
    for table, condition, values in statements:
        query = f"DELETE FROM {table} WHERE {condition} RETURNING 1"  # noqa: S608  constants
        removed[table] = len(await database.write(query, tenant, *values))
    return removed


def _in_base64(key_id: str) -> str:
    prefix = named_prefix(key_id)
    return b64encode(prefix[: len(prefix) - len(prefix) % 3]).decode()


async def is_projected(database: Database, erasure: Erasure, projection: str) -> bool:
    """Whether a projection has taken every event of the subject's, and whatever others have said for some seconds."""
    [row] = await database.fetch(
        """SELECT EXISTS (
               SELECT FROM events e LEFT JOIN projections p ON p.name = $2
               WHERE ((e.key_id = $1 AND e.sealed IS NOT NULL)
                      OR (e.tenant_id = $3 AND e.recorded_at < clock_timestamp() - interval '5 seconds'))
                     AND (e.transaction_id, e.global_position)
                         > (coalesce(p.transaction_id, '0'::xid8), coalesce(p.global_position, 0))) AS behind""",
        erasure.key_id,
        projection,
        erasure.tenant_id,
    )
    return not row["behind"]


async def artifacts_of(database: Database, erasure: Erasure, after: str, most: int) -> list[tuple[str, bool]]:
    """Artifacts that the subject's facts name, beyond the digest `after`, each with whether those of others name it as
    well."""
    rows = await database.fetch(
        """SELECT DISTINCT ON (r.digest) 'sha256:' || encode(r.digest, 'hex') AS digest,
                  EXISTS (SELECT FROM artifact_references o
                          WHERE o.tenant_id = r.tenant_id AND o.digest = r.digest AND o.key_id <> r.key_id)
                  OR EXISTS (SELECT FROM dependency_caches c
                             WHERE c.tenant_id = r.tenant_id AND c.archive_digest = r.digest) AS shared
           FROM artifact_references r WHERE r.key_id = $1 AND r.digest > $3 ORDER BY r.digest LIMIT $2""",
        erasure.key_id,
        most,
        bytes.fromhex(after.removeprefix("sha256:")),
    )
    return [(row["digest"], row["shared"]) for row in rows]


async def forget_references(database: Database, erasure: Erasure, digests: Sequence[str]) -> None:
    await database.write(
        "DELETE FROM artifact_references WHERE key_id = $1 AND digest = ANY ($2)",
        erasure.key_id,
        [bytes.fromhex(digest.removeprefix("sha256:")) for digest in digests],
    )


async def forget_unopened(database: Database, erasure: Erasure) -> None:
    """That some facts of the subject's could not be opened: what they may have named went with their content."""
    await database.write("DELETE FROM artifact_references WHERE key_id = $1 AND digest = $2", erasure.key_id, ANYTHING)


async def calls_told(database: Database, erasure: Erasure, after: int, most: int) -> list[StoredEvent]:
    """Ends of model calls beyond a place in the log, in runs of others: those in which the subject has answered
    something with a comment, after that, and those that replay one of them."""
    rows = await database.fetch(
        f"""WITH RECURSIVE told AS (
               SELECT metadata ->> 'runid' AS run_id, min(global_position) AS since FROM events
               WHERE key_id = $1 AND sealed IS NOT NULL AND event_type = 'run.input_received' GROUP BY 1
               UNION
               SELECT r.run_id, t.since FROM runs r JOIN told t ON r.replays_run_id = t.run_id)
           SELECT {COLUMNS} FROM events e JOIN told t ON e.metadata ->> 'runid' = t.run_id
           WHERE e.event_type = 'provider.call.ended' AND e.sealed IS NOT NULL AND e.key_id <> $1
               AND e.global_position > greatest(t.since, $2) ORDER BY e.global_position LIMIT $3""",  # noqa: S608
        erasure.key_id,
        after,
        most,
    )
    return await open_events(database.subjects, [from_row(row) for row in rows])


async def erase_sealed(database: Database, erasure: Erasure) -> int:
    """Takes the sealed content out of some events; how many, 0 when there are no more."""
    [row] = await database.write("SELECT erase_sealed_v1($1, $2)", erasure.id, BATCH)
    return int(row[0])


async def sealed_events(database: Database, erasure: Erasure) -> int:
    """Events with sealed content of the subject's."""
    query = "SELECT count(*) FROM events WHERE key_id = $1 AND sealed IS NOT NULL"
    [row] = await database.fetch(query, erasure.key_id)
    return int(row[0])
