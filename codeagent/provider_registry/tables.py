"""The rows of providers: every statement about them, and nothing that decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.facts import Change
from codeagent.messages.envelope import Event
from codeagent.messages.ids import provider_stream
from codeagent.providers.breaker import Standing

CREDENTIAL_REVOKED = "provider_credential_revoked"
"""The channel on which workers are told, at the commit, that there is a key less."""


async def append(change: Change, provider: str, fact: Event) -> None:
    """The next fact of a provider's stream. The author's tenant is the installation."""
    await change.append(provider_stream(provider), fact)


async def last_of(database: Database, providers: Sequence[str], types: Sequence[str]) -> Sequence[Row]:
    """Of each provider's stream the last event of these types: `provider`, `event_type`, and `age`, an interval."""
    return await database.fetch(
        """SELECT p.provider, e.event_type, clock_timestamp() - e.occurred_at AS age
           FROM unnest($1::text[], $2::text[]) AS p (provider, stream)
           CROSS JOIN LATERAL (SELECT event_type, occurred_at FROM events
                               WHERE stream_id = p.stream AND event_type = ANY ($3)
                               ORDER BY stream_version DESC LIMIT 1) e""",
        list(providers),
        [provider_stream(provider) for provider in providers],
        list(types),
    )


async def report(database: Database, worker: str, standings: Mapping[str, Standing], forget: timedelta) -> None:
    """What a worker knows of its providers, in the place of what it has said before. Of workers that have said nothing
    for `forget` nothing stays."""
    known = list(standings.values())
    await database.write(
        """WITH gone AS (DELETE FROM provider_health WHERE seen_at < clock_timestamp() - $7::interval)
           INSERT INTO provider_health (provider, worker, state, answered_at, failed_at, reason, seen_at)
           SELECT s.provider, $2, s.state, clock_timestamp() - s.answered * interval '1 s',
                  clock_timestamp() - s.failed * interval '1 s', s.reason, clock_timestamp()
           FROM unnest($1::text[], $3::text[], $4::float8[], $5::float8[], $6::text[])
               AS s (provider, state, answered, failed, reason)
           ON CONFLICT (provider, worker) DO UPDATE SET state = excluded.state, answered_at = excluded.answered_at,
               failed_at = excluded.failed_at, reason = excluded.reason, seen_at = excluded.seen_at""",
        list(standings),
        worker,
        [each.state for each in known],
        [each.answered_ago for each in known],
        [each.failed_ago for each in known],
        [each.reason for each in known],
        forget,
    )


@dataclass(frozen=True, slots=True)
class Health:
    """Of one provider, as its workers have told a moment ago: in how many of them calls go through (`closed`), are
    tried (`half_open`) or are not made (`open`)."""

    closed: int
    half_open: int
    open: int
    last_answer_at: datetime | None
    last_failure_at: datetime | None
    last_failure_reason: str


async def health(database: Database, within: timedelta) -> dict[str, Health]:
    """By provider, from the workers that have told something `within` that time."""
    rows = await database.fetch(
        """SELECT provider, count(*) FILTER (WHERE state = 'closed') AS closed,
                  count(*) FILTER (WHERE state = 'half-open') AS half_open,
                  count(*) FILTER (WHERE state = 'open') AS open,
                  max(answered_at) AS last_answer_at, max(failed_at) AS last_failure_at,
                  coalesce((array_agg(reason ORDER BY failed_at DESC NULLS LAST))[1], '') AS last_failure_reason
           FROM provider_health WHERE seen_at > clock_timestamp() - $1::interval GROUP BY provider""",
        within,
    )
    return {row["provider"]: Health(**{name: row[name] for name in Health.__dataclass_fields__}) for row in rows}


_CREDENTIAL = "id, provider, version, label, fingerprint, created_by, created_at, revoked_at, last_used_at"


async def insert_credential(change: Change, values: Sequence[object]) -> Row:
    """`values`: id, provider, label, fingerprint, who adds it, and the sealed key."""
    return await change.row(
        f"""INSERT INTO provider_credentials (id, provider, version, label, fingerprint, created_by, secret_sealed)
            VALUES ($1, $2, 1, $3, $4, $5, $6) RETURNING {_CREDENTIAL}""",  # noqa: S608  constants
        *values,
    )


async def find_credential(database: Database, provider: str, credential_id: str) -> Sequence[Row]:
    return await database.fetch(
        f"SELECT {_CREDENTIAL} FROM provider_credentials WHERE provider = $1 AND id = $2",  # noqa: S608  constants
        provider,
        credential_id,
    )


async def credentials_page(
    database: Database, provider: str, created_at: datetime | None, credential_id: str | None, limit: int
) -> Sequence[Row]:
    """Newest first, from beyond a place in the list, or from its beginning."""
    return await database.fetch(
        f"""SELECT {_CREDENTIAL} FROM provider_credentials
            WHERE provider = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
            ORDER BY created_at DESC, id DESC LIMIT $4""",  # noqa: S608  constants
        provider,
        created_at,
        credential_id,
        limit,
    )


async def providers_with_credentials(database: Database) -> frozenset[str]:
    rows = await database.fetch("SELECT DISTINCT provider FROM provider_credentials WHERE revoked_at IS NULL")
    return frozenset(row["provider"] for row in rows)


async def revoke_credential(change: Change, credential_id: str, version: int) -> None:
    """Raises `VersionMismatch`. The database forgets the key by itself."""
    await change.row(
        """UPDATE provider_credentials SET revoked_at = clock_timestamp(), version = version + 1
           WHERE id = $1 AND version = $2 RETURNING id""",
        credential_id,
        version,
    )


async def sealed_credentials(database: Database) -> Sequence[Row]:
    """Every active one, newest first: `id`, `provider`, `secret_sealed`."""
    return await database.fetch(
        """SELECT id, provider, secret_sealed FROM provider_credentials
           WHERE revoked_at IS NULL ORDER BY created_at DESC, id DESC"""
    )


async def note_credentials_used(database: Database, ids: Sequence[str], at_most_every: timedelta) -> None:
    """Unless another worker has done so in that time."""
    await database.write(
        """UPDATE provider_credentials SET last_used_at = clock_timestamp()
           WHERE id = ANY ($1)
             AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - $2::interval)""",
        list(ids),
        at_most_every,
    )
