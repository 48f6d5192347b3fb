"""A webhook, and what is asked about one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from codeagent.eventlog.database import Row
from codeagent.webhooks.payload import PayloadFormat

COLUMNS = """id, tenant_id, version, url, description, event_types, payload_format, status, disabled_reason,
    previous_until, fingerprint, created_at, updated_at"""


class Status(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as its owner sees it, without its secret. `version` is that of its stream."""

    id: str
    tenant_id: str
    version: int
    url: str = field(repr=False)
    description: str
    event_types: tuple[str, ...]
    payload_format: PayloadFormat
    status: Status
    disabled_reason: str
    previous_until: datetime | None
    fingerprint: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class WebhookOrder:
    """A webhook to make. `id` is derived from the request, so that a repeat makes none; `fingerprint` its body's."""

    id: str
    url: str
    event_types: tuple[str, ...]
    description: str
    payload_format: PayloadFormat
    fingerprint: str


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What is to be different; None leaves as it is."""

    url: str | None = None
    event_types: tuple[str, ...] | None = None
    description: str | None = None
    payload_format: PayloadFormat | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """`secret` is shown this once: None where an earlier request made the webhook."""

    webhook: Webhook
    secret: str | None


def secret_place(tenant_id: str, webhook_id: str) -> str:
    """What a sealed secret is bound to; the former secret has moved within it."""
    return f"{tenant_id}/webhooks/{webhook_id}/secret"


def from_row(row: Row) -> Webhook:
    values = dict(row)
    values["event_types"] = tuple(values["event_types"])
    values["payload_format"] = PayloadFormat(values["payload_format"])
    values["status"] = Status(values["status"])
    return Webhook(**values)
