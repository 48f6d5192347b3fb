"""Webhooks as rows, each change of one written together with its fact."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from codeagent import clock
from codeagent.cursors import format_time_cursor, page_of, parse_time_cursor
from codeagent.encryption import SecretBox
from codeagent.errors import CodeAgentError, Conflict, NotFound, Rejected
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author, Change, ControlPlane, check_repeat
from codeagent.messages.ids import parse_typed_id, webhook_stream
from codeagent.messages.webhook_events import (
    WebhookCreated,
    WebhookDeleted,
    WebhookDisabled,
    WebhookRedeliveryRequested,
    WebhookSecretRotated,
    WebhookTested,
    WebhookUpdated,
)
from codeagent.webhooks.deliveries import Deliveries, Delivery, insert_delivery, renew_delivery
from codeagent.webhooks.signing import new_secret
from codeagent.webhooks.targets import Targets, parse_target
from codeagent.webhooks.webhook import (
    COLUMNS,
    Shown,
    Status,
    Webhook,
    WebhookChange,
    WebhookOrder,
    from_row,
    secret_place,
)

NONE_SUCH = "There is no such webhook."


class Webhooks:
    """`database` works under the edge's role. Every method sees the webhooks of the named tenant, or of the author's.

    Without a `box` there are no secrets, and so nothing that needs one.
    """

    def __init__(self, database: Database, box: SecretBox | None, targets: Targets, *, most: int = 50) -> None:
        self._database = database
        self._control = ControlPlane(database)
        self._box = box
        self._targets = targets
        self._most = most
        self.deliveries = Deliveries(database)

    async def create(self, author: Author, order: WebhookOrder) -> Shown:
        """Raises `InvalidInput` for a URL that is refused and for an id that stands for another request, `Rejected`
        where there are too many."""
        box = self._sealing()
        if (webhook := await self._made_before(author.tenant_id, order)) is not None:
            return Shown(webhook, None)
        target = self._targets.parse(order.url)
        await self._targets.addresses(target)
        secret = new_secret()
        try:
            async with self._control.change(author) as change:
                await self._assert_room(change, author.tenant_id)
                row = await change.row(
                    f"""INSERT INTO webhooks (id, tenant_id, version, url, description, event_types, payload_format,
                                              secret, fingerprint)
                        VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8) RETURNING {COLUMNS}""",  # noqa: S608  constants
                    order.id,
                    author.tenant_id,
                    order.url,
                    order.description,
                    list(order.event_types),
                    order.payload_format,
                    box.seal(secret.encode(), secret_place(author.tenant_id, order.id)),
                    order.fingerprint,
                )
                fact = WebhookCreated(
                    webhook_id=order.id,
                    origin=target.origin,
                    event_types=order.event_types,
                    payload_format=order.payload_format,
                )
                await change.record(webhook_stream(order.id), 1, fact)
        except Conflict:
            # Another request made it meanwhile, or an earlier one did and it has been deleted since.
            if (webhook := await self._made_before(author.tenant_id, order)) is not None:
                return Shown(webhook, None)
            detail = "The webhook that this Idempotency-Key made has been deleted."
            raise Rejected(detail, code="conflict", status=409) from None
        return Shown(from_row(row), secret)

    def _sealing(self) -> SecretBox:
        if self._box is None:
            detail = "Webhooks are not available: the operator has set no key to seal their secrets with."
            raise CodeAgentError(detail, code="not_implemented", status=501)
        return self._box

    async def _assert_room(self, change: Change, tenant_id: str) -> None:
        # Held to the end of the transaction: two that come at once are counted one after the other.
        await change.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"webhooks/{tenant_id}")
        [row] = await change.rows("SELECT count(*) FROM webhooks WHERE tenant_id = $1", tenant_id)
        if row[0] >= self._most:
            raise Rejected(f"There are {self._most} webhooks already.", code="limit_reached", status=409)

    async def _made_before(self, tenant_id: str, order: WebhookOrder) -> Webhook | None:
        try:
            webhook = await self.find(tenant_id, order.id)
        except NotFound:
            return None
        check_repeat(webhook.fingerprint, order.fingerprint)
        return webhook

    async def find(self, tenant_id: str, webhook_id: str) -> Webhook:
        """Raises `NotFound`, also for another tenant's webhook."""
        _check_id(webhook_id)
        rows = await self._database.fetch(
            f"SELECT {COLUMNS} FROM webhooks WHERE id = $1",  # noqa: S608  constants
            webhook_id,
            tenant=tenant_id,
        )
        if not rows:
            raise NotFound(NONE_SUCH)
        return from_row(rows[0])

    async def page(self, tenant_id: str, *, after: str | None, limit: int) -> tuple[Sequence[Webhook], str | None]:
        """Webhooks, newest first, and the next page's cursor. Raises `Rejected` for a cursor that is none."""
        created_at, webhook_id = parse_time_cursor("whk", after)
        rows = await self._database.fetch(
            f"""SELECT {COLUMNS} FROM webhooks
                WHERE $1::timestamptz IS NULL OR (created_at, id) < ($1, $2)
                ORDER BY created_at DESC, id DESC LIMIT $3""",  # noqa: S608  constants
            created_at,
            webhook_id,
            limit + 1,
            tenant=tenant_id,
        )
        found = [from_row(row) for row in rows]
        return page_of(found, limit, lambda webhook: format_time_cursor(webhook.created_at, webhook.id))

    async def update(self, author: Author, webhook: Webhook, wanted: WebhookChange) -> Webhook:
        """Raises `VersionMismatch` where it has changed since it was read, `InvalidInput` for a URL."""
        if wanted.url is not None:
            await self._targets.addresses(self._targets.parse(wanted.url))
        async with self._control.change(author) as change:
            row = await change.row(
                f"""UPDATE webhooks SET version = version + 1, updated_at = clock_timestamp(),
                        url = coalesce($3, url), event_types = coalesce($4, event_types),
                        description = coalesce($5, description), payload_format = coalesce($6, payload_format),
                        status = coalesce($7, status),
                        disabled_reason = CASE $7 WHEN 'disabled' THEN 'requested' WHEN 'enabled' THEN ''
                                          ELSE disabled_reason END,
                        exhausted = CASE $7 WHEN 'enabled' THEN 0 ELSE exhausted END,
                        since = CASE WHEN status = 'disabled' AND $7 = 'enabled' THEN pg_current_xact_id()
                                ELSE since END
                    WHERE id = $1 AND version = $2 RETURNING {COLUMNS}""",  # noqa: S608  constants
                webhook.id,
                webhook.version,
                wanted.url,
                None if wanted.event_types is None else list(wanted.event_types),
                wanted.description,
                wanted.payload_format,
                wanted.status,
            )
            changed = from_row(row)
            fact = WebhookUpdated(
                webhook_id=changed.id,
                origin=parse_target(changed.url).origin,
                event_types=changed.event_types,
                payload_format=changed.payload_format,
                status=changed.status.value,
            )
            await change.record(webhook_stream(changed.id), changed.version, fact)
        return changed

    async def rotate_secret(self, author: Author, webhook: Webhook, overlap: timedelta) -> Shown:
        """A new secret; the former one signs as well for `overlap` more, one from before it no longer. Raises
        `VersionMismatch`."""
        secret = new_secret()
        sealed = self._sealing().seal(secret.encode(), secret_place(author.tenant_id, webhook.id))
        async with self._control.change(author) as change:
            row = await change.row(
                f"""UPDATE webhooks SET version = version + 1, updated_at = clock_timestamp(), secret = $3,
                        previous_secret = secret, previous_until = clock_timestamp() + $4::interval
                    WHERE id = $1 AND version = $2 RETURNING {COLUMNS}""",  # noqa: S608  constants
                webhook.id,
                webhook.version,
                sealed,
                overlap,
            )
            fact = WebhookSecretRotated(webhook_id=webhook.id, previous_until=row["previous_until"])
            await change.record(webhook_stream(webhook.id), row["version"], fact)
        return Shown(from_row(row), secret)

    async def test(self, author: Author, webhook_id: str) -> Delivery:
        """Sends the fact that this was asked for. Raises `NotFound`, and `Conflict` (`invalid_state_transition`) while
        the webhook is disabled."""
        async with self._control.change(author) as change:
            version = await self._use(change, webhook_id)
            event = await change.record(webhook_stream(webhook_id), version, WebhookTested(webhook_id=webhook_id))
            return await insert_delivery(change, webhook_id, event)

    async def redeliver(self, author: Author, webhook_id: str, delivery_id: str) -> Delivery:
        """Raises as `test`."""
        async with self._control.change(author) as change:
            version = await self._use(change, webhook_id)
            delivery = await renew_delivery(change, webhook_id, delivery_id)
            fact = WebhookRedeliveryRequested(webhook_id=webhook_id, delivery_id=delivery_id)
            await change.record(webhook_stream(webhook_id), version, fact)
            return delivery

    async def _use(self, change: Change, webhook_id: str) -> int:
        """The version of what is done with an enabled webhook."""
        _check_id(webhook_id)
        rows = await change.rows(
            "UPDATE webhooks SET version = version + 1 WHERE id = $1 RETURNING version, status", webhook_id
        )
        if not rows:
            raise NotFound(NONE_SUCH)
        if rows[0]["status"] == Status.DISABLED:
            raise Conflict("The webhook is disabled.", code="invalid_state_transition")
        return int(rows[0]["version"])

    async def delete(self, author: Author, webhook: Webhook) -> None:
        """Nothing is sent any more, its secrets are gone at once, what was sent is forgotten soon. Raises
        `VersionMismatch`."""
        async with self._control.change(author) as change:
            await change.row(
                "DELETE FROM webhooks WHERE id = $1 AND version = $2 RETURNING id", webhook.id, webhook.version
            )
            await change.record(webhook_stream(webhook.id), webhook.version + 1, WebhookDeleted(webhook_id=webhook.id))


def _check_id(webhook_id: str) -> None:
    if parse_typed_id("whk", webhook_id) is None:
        raise NotFound(NONE_SUCH)


async def disable_webhook(
    database: Database, tenant_id: str, webhook_id: str, reason: Literal["gone", "exhausted"]
) -> bool:
    """The system's own decision, where all tenants are seen. False where it is disabled or gone already."""
    author = Author(tenant_id, "system", "relay", clock.new_uuid())
    async with ControlPlane(database).change(author) as change:
        rows = await change.rows(
            """UPDATE webhooks SET version = version + 1, status = 'disabled', disabled_reason = $2, exhausted = 0,
                      updated_at = clock_timestamp()
               WHERE id = $1 AND status = 'enabled' RETURNING version""",
            webhook_id,
            reason,
        )
        for row in rows:
            fact = WebhookDisabled(webhook_id=webhook_id, reason=reason)
            await change.record(webhook_stream(webhook_id), row["version"], fact)
    return bool(rows)
