"""What is kept of deliveries, for how long, and who sees it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from codeagent.encryption import SecretBox
from codeagent.errors import NotFound, Rejected
from codeagent.eventlog.database import Database
from codeagent.eventlog.sealed import SEALED_COLUMNS, reseal
from codeagent.messages import events
from codeagent.webhooks.deliveries import DeliveryState
from codeagent.webhooks.queue import MOST_ATTEMPTS_KEPT, Ending
from codeagent.webhooks.registry import Webhooks
from codeagent.webhooks.targets import Targets
from tests.integration.eventlog.steps import TENANT
from tests.integration.webhooks.relay import BOX, LOOPBACK, World, author, relay_on, working
from tests.servers.webhook_receiver import WebhookReceiver

MONTH = timedelta(days=30)


async def count(database: Database, table: str, tenant: str = "") -> int:
    rows = await database.fetch(f"SELECT count(*) FROM {table}", tenant=tenant)
    return int(rows[0][0])


async def test_old_deliveries_are_forgotten_with_their_attempts_a_bounded_number_at_a_time(
    here: World, receiver: WebhookReceiver
) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen(*[events.RunStarted()] * 5)
    relay = relay_on(here)
    async with working(relay):
        await here.delivered(shown.webhook, 5)
        assert await relay.queue.forget(MONTH, 100) == 0
        await here.pass_time(MONTH)
        await here.happen()
        await here.delivered(shown.webhook, 6)
    assert [await relay.queue.forget(MONTH, 3) for _ in range(3)] == [3, 2, 0]
    assert len(await here.deliveries(shown.webhook)) == 1
    assert await count(here.database, "webhook_attempts") == 1


async def test_what_was_sent_to_a_deleted_webhook_is_forgotten_soon(here: World, receiver: WebhookReceiver) -> None:
    kept, deleted = await here.webhook(receiver.url), await here.webhook(receiver.url)
    await here.happen(*[events.RunStarted()] * 3)
    relay = relay_on(here)
    await relay.dispatch()
    await here.webhooks.delete(author(), deleted.webhook)
    claims = await relay.queue.claim(10, under_way={}, most_each=10)
    assert {claim.webhook_id for claim in claims} == {kept.webhook.id}
    assert await relay.queue.forget(MONTH, 100) == 3
    assert await count(here.database, "webhook_deliveries") == 3


async def test_a_secret_that_signs_no_more_is_wiped(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url)
    await here.webhooks.rotate_secret(author(), shown.webhook, timedelta(hours=1))
    relay = relay_on(here)
    for left in (1, 0):
        await relay.queue.forget(MONTH, 100)
        assert await count(here.database, "webhooks WHERE previous_secret IS NOT NULL") == left
        await here.pass_time(timedelta(hours=1))


async def test_secrets_go_on_signing_when_the_key_that_sealed_them_is_replaced(
    here: World, receiver: WebhookReceiver
) -> None:
    former = await here.webhook(receiver.url)
    current = await here.webhooks.rotate_secret(author(), former.webhook, timedelta(hours=1))
    sealed_by = {"new": bytes(32)}
    found = await reseal(here.database, SecretBox({**sealed_by, "test": bytes(range(32))}), SEALED_COLUMNS)
    assert [item.resealed for item in found if item.column.table == "webhooks"] == [1, 1]
    await here.happen()
    async with working(relay_on(here, box=SecretBox(sealed_by))):
        [request] = await receiver.until(1)
    for shown in (former, current):
        assert request.verified(str(shown.secret))["type"] == "run.started"


async def test_the_newest_attempts_of_a_delivery_are_kept(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen()
    relay = relay_on(here)
    await relay.dispatch()
    for _ in range(MOST_ATTEMPTS_KEPT + 3):
        [claim] = await relay.queue.claim(1, under_way={}, most_each=1)
        await relay.queue.settle(Ending(claim, DeliveryState.PENDING, status=500, error="bad_status"))
    attempts = await here.attempts(await here.only(shown.webhook))
    assert [attempt.number for attempt in attempts] == list(range(4, MOST_ATTEMPTS_KEPT + 4))


async def test_the_edge_sees_the_rows_of_the_tenant_it_names(here: World, receiver: WebhookReceiver) -> None:
    mine = await here.webhook(receiver.url)
    theirs = await here.webhook(receiver.url, tenant_id="ten_other")
    await here.happen()
    await here.happen(tenant_id="ten_other")
    async with working(relay_on(here)):
        await here.delivered(mine.webhook, 1)
        await here.delivered(theirs.webhook, 1)
    for table in ("webhooks", "webhook_deliveries", "webhook_attempts"):
        assert await count(here.database, table) == 2
        seen = [await count(here.walled, table, tenant) for tenant in (TENANT, "ten_other", "ten_nobody", "")]
        assert seen == [1, 1, 0, 0], table
    delivery = await here.only(theirs.webhook)
    for search in (
        here.webhooks.find(TENANT, theirs.webhook.id),
        here.webhooks.deliveries.find(TENANT, theirs.webhook.id, delivery.id),
        here.webhooks.redeliver(author(), theirs.webhook.id, delivery.id),
    ):
        with pytest.raises(NotFound):
            await search
    assert await here.attempts(delivery) == []


async def test_a_tenant_has_so_many_webhooks_and_no_more_also_when_they_are_made_at_once(here: World) -> None:
    here.webhooks = Webhooks(here.walled, BOX, Targets(LOOPBACK), most=3)
    url = "http://127.0.0.1:9/"
    await here.webhook(url, tenant_id="ten_other")
    await asyncio.gather(*(here.walled.fetch("SELECT pg_sleep(0.1)") for _ in range(4)))  # opens every connection
    made = await asyncio.gather(*(here.webhook(url) for _ in range(12)), return_exceptions=True)
    refused = [error for error in made if isinstance(error, Rejected)]
    assert {(error.code, error.status) for error in refused} == {("limit_reached", 409)}
    assert await count(here.database, f"webhooks WHERE tenant_id = '{TENANT}'") == 12 - len(refused) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE webhook_deliveries SET attempts = 0",
        "UPDATE webhook_deliveries SET token = NULL",
        "DELETE FROM webhook_deliveries",
        "DELETE FROM webhook_attempts",
        "UPDATE webhook_attempts SET status = 200",
        "INSERT INTO webhook_attempts (delivery_id, number, tenant_id) VALUES ('d', 1, 'ten_test')",
    ],
)
async def test_what_was_sent_cannot_be_rewritten_by_the_edge(here: World, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await here.walled.fetch(statement, tenant=TENANT)


async def test_a_webhook_cannot_be_made_for_another_tenant(here: World) -> None:
    insert = """INSERT INTO webhooks (id, tenant_id, version, url, description, event_types, payload_format, secret,
                                      fingerprint) VALUES ('w', 'ten_other', 1, '', '', '{}', 'standard', '', '')"""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await here.walled.fetch(insert, tenant=TENANT)
