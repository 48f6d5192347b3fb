"""What happens to a webhook, on its own stream. URLs are named by their origin: the rest often holds a token."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from codeagent.messages.envelope import Event


class WebhookCreated(Event):
    NAME: ClassVar[str] = "webhook.created"

    webhook_id: str
    origin: str
    event_types: tuple[str, ...]
    payload_format: str


class WebhookUpdated(Event):
    """How it is after a change."""

    NAME: ClassVar[str] = "webhook.updated"

    webhook_id: str
    origin: str
    event_types: tuple[str, ...]
    payload_format: str
    status: Literal["enabled", "disabled"]


class WebhookSecretRotated(Event):
    """From now on a new secret signs; until `previous_until` the former one signs as well."""

    NAME: ClassVar[str] = "webhook.secret_rotated"

    webhook_id: str
    previous_until: datetime


class WebhookTested(Event):
    """Somebody asked for a test. This very event is what the receiver is sent."""

    NAME: ClassVar[str] = "webhook.tested"

    webhook_id: str


class WebhookRedeliveryRequested(Event):
    """Somebody asked for something to be sent again."""

    NAME: ClassVar[str] = "webhook.redelivery_requested"

    webhook_id: str
    delivery_id: str


class WebhookDisabled(Event):
    """Nothing is sent any more: the receiver said that it is gone, or too many deliveries were given up."""

    NAME: ClassVar[str] = "webhook.disabled"

    webhook_id: str
    reason: Literal["gone", "exhausted"]


class WebhookDeleted(Event):
    NAME: ClassVar[str] = "webhook.deleted"

    webhook_id: str
