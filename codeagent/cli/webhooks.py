"""The composition root's part that knows webhooks: making them at the edge, sending in the relay."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import httpx2

from codeagent.cli.parts import Parts
from codeagent.encryption import SecretBox
from codeagent.eventlog.database import Database
from codeagent.relay.retention import Forget
from codeagent.relay.webhook_client import WebhookClient
from codeagent.relay.webhook_sender import LEASE, SenderPolicy, WebhookSender
from codeagent.settings import Settings
from codeagent.telemetry.logs import get_logger
from codeagent.webhooks.dispatcher import DeliveryDispatcher
from codeagent.webhooks.queue import DeliveryQueue
from codeagent.webhooks.registry import Webhooks, disable_webhook
from codeagent.webhooks.targets import TargetPolicy, Targets

log = get_logger(__name__)


def _policy(settings: Settings) -> TargetPolicy:
    return TargetPolicy(frozenset(settings.webhook_ports), settings.webhook_loopback, settings.webhook_networks)


def webhooks(settings: Settings, database: Database, box: SecretBox | None) -> Webhooks:
    """`database` works under the edge's role."""
    return Webhooks(database, box, Targets(_policy(settings)))


def deliver(parts: Parts) -> dict[str, Forget]:
    """Adds what a relay does for webhooks to its process, and returns what it is to forget, by name. Raises `OSError`
    for a file that cannot be read."""
    settings, database, process = parts.settings, parts.database, parts.process
    if parts.box is None:
        log.info("webhooks.off", why="there are no key-encryption keys")
        return {}
    slots = settings.webhook_slots
    queue = DeliveryQueue(database, lease=LEASE)
    policy = SenderPolicy(
        slots=slots,
        slots_each=min(settings.webhook_slots_each, slots),
        disable_after=settings.webhook_disable_after,
        drain_seconds=settings.drain_seconds,
    )
    sender = WebhookSender(queue, _client(settings), parts.box, partial(disable_webhook, database), policy)
    dispatcher = DeliveryDispatcher(database, parts.log, sender.wake)
    process.start += [sender.start, dispatcher.start]
    process.stop += [dispatcher.stop, sender.stop]
    return {"webhook deliveries": partial(queue.forget, timedelta(days=settings.webhook_retention_days))}


def _client(settings: Settings) -> WebhookClient:
    context = httpx2.create_ssl_context()
    if settings.webhook_certificates is not None:
        context.load_verify_locations(settings.webhook_certificates)
    # More threads than slots: a look-up that was given up still holds its thread for a while.
    return WebhookClient(Targets(_policy(settings), threads=2 * settings.webhook_slots), context)
