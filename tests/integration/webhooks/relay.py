"""Relays of tests: the real dispatcher and sender on a real database, with time that can be moved on."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from codeagent import clock
from codeagent.encryption import SecretBox
from codeagent.eventlog.database import Database
from codeagent.eventlog.facts import Author
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.messages import events
from codeagent.messages.envelope import Event
from codeagent.messages.ids import typed_id
from codeagent.relay.webhook_client import WebhookClient
from codeagent.relay.webhook_sender import LEASE, SenderPolicy, WebhookSender
from codeagent.webhooks.deliveries import Attempt, Delivery, DeliveryState
from codeagent.webhooks.dispatcher import DeliveryDispatcher
from codeagent.webhooks.payload import PayloadFormat
from codeagent.webhooks.queue import DeliveryQueue
from codeagent.webhooks.registry import Webhooks, disable_webhook
from codeagent.webhooks.targets import TargetPolicy, Targets
from codeagent.webhooks.webhook import Shown, Webhook, WebhookOrder
from tests.integration.eventlog.steps import TENANT, commit_step, new_run, step

BOX = SecretBox({"test": bytes(range(32))})
LOOPBACK = TargetPolicy(loopback=True)
QUICK = SenderPolicy(idle_seconds=0.05, drain_seconds=5.0)
MIDDLE = 0.5
"""A chance that neither lengthens nor shortens a delay."""


def author(tenant_id: str = TENANT) -> Author:
    return Author(tenant_id, "app_user", "usr_1", clock.new_uuid())


def client(
    targets: Targets | None = None, context: ssl.SSLContext | None = None, *, timeout_seconds: float = 10.0
) -> WebhookClient:
    made = targets or Targets(LOOPBACK)
    return WebhookClient(made, context or ssl.create_default_context(), timeout_seconds=timeout_seconds)


@dataclass
class World:
    """A database as its owner and as the edge see it, and what tests do with both."""

    database: Database
    walled: Database
    webhooks: Webhooks

    async def webhook(
        self, url: str, *patterns: str, tenant_id: str = TENANT, form: PayloadFormat = PayloadFormat.STANDARD
    ) -> Shown:
        order = WebhookOrder(typed_id("whk", clock.new_uuid()), url, patterns or ("*",), "", form, "")
        return await self.webhooks.create(author(tenant_id), order)

    async def happen(self, *facts: Event, tenant_id: str = TENANT) -> list[str]:
        """Events of a run of its own; returns their ids."""
        made = replace(step(new_run(), 0, facts or [events.RunStarted()]), tenant_id=tenant_id)
        await commit_step(self.database, made)
        return [str(event.id) for event in made.events]

    async def deliveries(self, webhook: Webhook) -> Sequence[Delivery]:
        """Oldest first."""
        found, _ = await self.webhooks.deliveries.page(webhook.tenant_id, webhook.id, state=None, after=None, limit=200)
        return list(reversed(found))

    async def only(self, webhook: Webhook) -> Delivery:
        [delivery] = await self.deliveries(webhook)
        return delivery

    async def attempts(self, delivery: Delivery, tenant_id: str = TENANT) -> Sequence[Attempt]:
        return await self.webhooks.deliveries.attempts(tenant_id, delivery.id)

    async def settled(self, webhook: Webhook, attempts: int) -> Delivery:
        """The only delivery once so many attempts have ended."""

        async def ended() -> bool:
            found = await self.deliveries(webhook)  # none until it is dispatched
            return bool(found) and len(await self.attempts(found[0], webhook.tenant_id)) >= attempts

        await until(ended)
        return await self.only(webhook)

    async def delivered(self, webhook: Webhook, count: int) -> None:
        async def all_are() -> bool:
            states = [delivery.state for delivery in await self.deliveries(webhook)]
            return states.count(DeliveryState.DELIVERED) >= count

        await until(all_are)

    async def pass_time(self, by: timedelta) -> None:
        """Moves everything that is waiting nearer by as much."""
        await self.database.write(
            """UPDATE webhook_deliveries SET due_at = due_at - $1::interval, began_at = began_at - $1::interval,
                      created_at = created_at - $1::interval""",
            by,
        )
        await self.database.write(
            "UPDATE webhooks SET previous_until = previous_until - $1::interval WHERE previous_until IS NOT NULL", by
        )

    async def now(self, webhook: Webhook) -> Webhook:
        return await self.webhooks.find(webhook.tenant_id, webhook.id)

    async def facts(self, webhook: Webhook) -> list[tuple[str, Any]]:
        """The type and data of each event of a webhook's stream."""
        found = await EventLog(self.database).read_stream(f"webhook-{webhook.id}")
        return [(event.type, event.document()) for event in found]


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def world(url: str) -> AsyncIterator[World]:
    database, walled = Database(url, connections=8), Database(url, connections=4, role=EDGE_ROLE)
    targets = Targets(LOOPBACK)
    try:
        yield World(database, walled, Webhooks(walled, BOX, targets, most=50))
    finally:
        targets.close()
        await walled.close()
        await database.close()


@dataclass
class Relay:
    dispatcher: DeliveryDispatcher
    sender: WebhookSender
    queue: DeliveryQueue

    async def dispatch(self) -> None:
        """Until the log holds nothing more. The horizon may lag a moment behind the last commit."""
        while await self.dispatcher.catch_up() == 0:
            await asyncio.sleep(0.01)
        while await self.dispatcher.catch_up():
            pass

    async def send(self) -> list[BaseException | None]:
        """Claims once, and waits for every attempt to end; returns what each ended by."""
        await self.sender.claim()
        return await asyncio.gather(*self.sender._under_way, return_exceptions=True)


def relay_on(
    here: World,
    policy: SenderPolicy = QUICK,
    *,
    box: SecretBox = BOX,
    through: WebhookClient | None = None,
    chance: float = MIDDLE,
    lease: timedelta = LEASE,
) -> Relay:
    """Not started."""
    queue = DeliveryQueue(here.database, lease=lease)
    disable = partial(disable_webhook, here.database)
    sender = WebhookSender(queue, through or client(), box, disable, policy, chance=lambda: chance)
    dispatcher = DeliveryDispatcher(here.database, EventLog(here.database), sender.wake, idle_seconds=0.05)
    return Relay(dispatcher, sender, queue)


@asynccontextmanager
async def working(relay: Relay) -> AsyncIterator[Relay]:
    """Dispatches and sends for as long as the block lasts."""
    await relay.sender.start()
    await relay.dispatcher.start()
    try:
        yield relay
    finally:
        await relay.dispatcher.stop()
        await relay.sender.stop()
