"""What is due to be sent: claimed by senders under a lease, settled with what came of it.

Any number of relays may work on it. Its owner sees the rows of all tenants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from codeagent.eventlog.batching import Batcher
from codeagent.eventlog.database import Database, Row
from codeagent.eventlog.log import columns
from codeagent.eventlog.sealing import open_events
from codeagent.eventlog.stored import StoredEvent, from_row
from codeagent.webhooks.deliveries import DeliveryState
from codeagent.webhooks.payload import PayloadFormat

MOST_ATTEMPTS_KEPT = 50
"""Of one delivery: redeliveries add to them without end."""

# From one webhook with something pending to the next, however much is pending at each: one index probe a webhook.
# `place` is a delivery's turn: whoever has least under way comes first, so that nobody waits behind a slow receiver.
# A row that still has a token was claimed by a sender that never settled it.
_CLAIM = f"""
WITH RECURSIVE waiting AS (
    (SELECT webhook_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.webhook_id FROM webhook_deliveries d
            WHERE d.state = 'pending' AND d.webhook_id > waiting.webhook_id ORDER BY d.webhook_id LIMIT 1)
    FROM waiting WHERE waiting.webhook_id IS NOT NULL
), due AS (
    SELECT d.id, d.due_at, d.token, d.attempts,
           row_number() OVER (PARTITION BY w.id ORDER BY d.due_at) + coalesce(b.under_way, 0) AS place
    FROM waiting
    JOIN webhooks w ON w.id = waiting.webhook_id AND w.status = 'enabled'
         AND NOT EXISTS (SELECT FROM tenants t WHERE t.id = w.tenant_id AND t.suspended_at IS NOT NULL)
    LEFT JOIN unnest($1::text[], $2::int[]) AS b (webhook_id, under_way) ON b.webhook_id = w.id
    CROSS JOIN LATERAL (
        SELECT id, due_at, token, attempts FROM webhook_deliveries
        WHERE webhook_id = w.id AND state = 'pending' AND due_at <= statement_timestamp()
        ORDER BY due_at LIMIT greatest($3 - coalesce(b.under_way, 0), 0) FOR UPDATE SKIP LOCKED) d
), picked AS (
    SELECT id, token, attempts FROM due ORDER BY place, due_at LIMIT $4
), lost AS (
    INSERT INTO webhook_attempts (delivery_id, number, tenant_id, error)
    SELECT d.id, d.attempts, d.tenant_id, 'sender_lost'
    FROM picked JOIN webhook_deliveries d USING (id) WHERE picked.token IS NOT NULL
    ON CONFLICT DO NOTHING
), claimed AS (
    UPDATE webhook_deliveries d SET token = gen_random_uuid(), due_at = clock_timestamp() + $5::interval,
           attempts = d.attempts + 1, step = d.step + 1, updated_at = clock_timestamp()
    FROM picked WHERE d.id = picked.id RETURNING d.*
)
SELECT c.id AS delivery_id, c.webhook_id, c.token, c.step, clock_timestamp() - c.began_at AS age,
       w.tenant_id AS owner, w.url, w.payload_format, w.secret,
       CASE WHEN w.previous_until > clock_timestamp() THEN w.previous_secret END AS previous_secret,
       e.transaction_id::text, {columns("e.")}
FROM claimed c JOIN webhooks w ON w.id = c.webhook_id
JOIN events e ON e.stream_id = c.stream_id AND e.stream_version = c.stream_version"""  # noqa: S608  constants

_SETTLE = """
WITH ended AS (
    SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::interval[], $5::int[], $6::text[], $7::int[],
                         $8::bool[])
           AS o (id, token, state, delay, status, error, latency_ms, blamed)
), settled AS (
    UPDATE webhook_deliveries d SET state = o.state, token = NULL, due_at = clock_timestamp() + o.delay,
           last_status = o.status, last_error = o.error, last_latency_ms = o.latency_ms, updated_at = clock_timestamp()
    FROM ended o WHERE d.id = o.id AND d.token = o.token
    RETURNING d.id, d.tenant_id, d.webhook_id, d.attempts, o.state, o.status, o.error, o.latency_ms, o.blamed
), logged AS (
    INSERT INTO webhook_attempts (delivery_id, number, tenant_id, status, error, latency_ms)
    SELECT id, attempts, tenant_id, status, error, latency_ms FROM settled
    ON CONFLICT DO NOTHING
), trimmed AS (
    DELETE FROM webhook_attempts a USING settled s WHERE a.delivery_id = s.id AND a.number <= s.attempts - $9
), judged AS (
    UPDATE webhooks w SET exhausted = CASE WHEN c.arrived THEN 0 ELSE w.exhausted + c.given_up END
    FROM (SELECT webhook_id, bool_or(state = 'delivered') AS arrived,
                 count(*) FILTER (WHERE state = 'failed' AND blamed) AS given_up
          FROM settled GROUP BY webhook_id) c
    WHERE w.id = c.webhook_id AND (c.given_up > 0 OR (c.arrived AND w.exhausted > 0))
    RETURNING w.id, w.exhausted
)
SELECT s.id, j.exhausted FROM settled s LEFT JOIN judged j ON j.id = s.webhook_id"""

# Webhooks that are gone are found as in `_CLAIM`: one probe each.
_FORGET = """
WITH RECURSIVE known AS (
    (SELECT webhook_id FROM webhook_deliveries ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.webhook_id FROM webhook_deliveries d
            WHERE d.webhook_id > known.webhook_id ORDER BY d.webhook_id LIMIT 1)
    FROM known WHERE known.webhook_id IS NOT NULL
), useless AS (
    (SELECT id FROM webhook_deliveries WHERE created_at < clock_timestamp() - $1::interval ORDER BY created_at LIMIT $2)
    UNION ALL
    (SELECT d.id FROM known CROSS JOIN LATERAL (
         SELECT id FROM webhook_deliveries WHERE webhook_id = known.webhook_id LIMIT $2) d
     WHERE NOT EXISTS (SELECT FROM webhooks w WHERE w.id = known.webhook_id))
    LIMIT $2
)
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries WHERE id IN (SELECT id FROM useless) FOR UPDATE SKIP LOCKED)
RETURNING id"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that is ours until the lease ends: `token` says so. `step` counts attempts from 1, this one included.
    `sealed_secrets` are those that sign, the newest first."""

    delivery_id: str
    webhook_id: str
    tenant_id: str
    token: UUID
    step: int
    age: timedelta
    url: str = field(repr=False)
    payload_format: PayloadFormat
    sealed_secrets: tuple[bytes, ...] = field(repr=False)
    event: StoredEvent = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of an attempt. `delay` until the next one where the state is pending; `blamed`: giving up counts
    against the webhook."""

    claim: Claim
    state: DeliveryState
    delay: timedelta = timedelta(0)
    status: int | None = None
    error: str | None = None
    latency_ms: int | None = None
    blamed: bool = True


@dataclass(frozen=True, slots=True)
class Settled:
    """`exhausted` is how many deliveries of the webhook were given up in a row, where that has just changed."""

    exhausted: int = 0


class DeliveryQueue:
    def __init__(self, database: Database, *, lease: timedelta) -> None:
        self._database = database
        self._lease = lease
        self._settlements: Batcher[Ending, Settled | None] = Batcher(self._settle_many, most=100)

    async def claim(self, most: int, *, under_way: Mapping[str, int], most_each: int) -> Sequence[Claim]:
        """Deliveries that are due, at most `most`, and no more than `most_each` of one webhook with what this sender
        has `under_way` of it already."""
        rows = await self._database.write(
            _CLAIM, list(under_way), list(under_way.values()), most_each, most, self._lease
        )
        events = await open_events(self._database.subjects, [from_row(row) for row in rows])
        return [_claim(row, event) for row, event in zip(rows, events, strict=True)]

    async def settle(self, ending: Ending) -> Settled | None:
        """None where the lease was lost meanwhile: somebody else is at it, or has been."""
        return await self._settlements(ending)

    async def _settle_many(self, endings: Sequence[Ending]) -> Sequence[Settled | None]:
        rows = await self._database.write(
            _SETTLE,
            [item.claim.delivery_id for item in endings],
            [item.claim.token for item in endings],
            [item.state for item in endings],
            [item.delay for item in endings],
            [item.status for item in endings],
            [item.error for item in endings],
            [item.latency_ms for item in endings],
            [item.blamed for item in endings],
            MOST_ATTEMPTS_KEPT,
        )
        found = {row["id"]: Settled(row["exhausted"] or 0) for row in rows}
        return [found.get(item.claim.delivery_id) for item in endings]

    async def give_back(self, claims: Sequence[Claim], delay: timedelta = timedelta(0)) -> None:
        """Undoes claims whose attempts were not made, or not seen to their end by us."""
        await self._database.write(
            """UPDATE webhook_deliveries d SET token = NULL, due_at = clock_timestamp() + $3::interval,
                      attempts = attempts - 1, step = step - 1
               FROM unnest($1::text[], $2::uuid[]) AS g (id, token) WHERE d.id = g.id AND d.token = g.token""",
            [claim.delivery_id for claim in claims],
            [claim.token for claim in claims],
            delay,
        )

    async def forget(self, older_than: timedelta, most: int) -> int:
        """Removes at most `most` deliveries, with their attempts, that are old or whose webhook is gone, and secrets
        that sign no more; returns how many deliveries that were."""
        await self._database.write(
            "UPDATE webhooks SET previous_secret = NULL WHERE previous_secret IS NOT NULL AND previous_until < now()"
        )
        rows = await self._database.write(_FORGET, older_than, most)
        return len(rows)

    async def disabled(self) -> int:
        """How many webhooks are disabled."""
        [row] = await self._database.fetch("SELECT count(*) FROM webhooks WHERE status = 'disabled'")
        return int(row[0])


def _claim(row: Row, event: StoredEvent) -> Claim:
    secrets = (row["secret"], row["previous_secret"])
    return Claim(
        delivery_id=row["delivery_id"],
        webhook_id=row["webhook_id"],
        tenant_id=row["owner"],
        token=row["token"],
        step=row["step"],
        age=row["age"],
        url=row["url"],
        payload_format=PayloadFormat(row["payload_format"]),
        sealed_secrets=tuple(secret for secret in secrets if secret is not None),
        event=event,
    )
