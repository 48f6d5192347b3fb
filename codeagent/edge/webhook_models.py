"""Bodies of requests and answers about webhooks."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, Field

from codeagent.edge.models import Strict, Whole
from codeagent.webhooks.deliveries import Attempt, Delivery, DeliveryState
from codeagent.webhooks.filters import is_pattern
from codeagent.webhooks.payload import PayloadFormat
from codeagent.webhooks.webhook import Shown, Status, Webhook, WebhookChange

LONGEST_OVERLAP_SECONDS = 7 * 86_400


def _known(pattern: str) -> str:
    if not is_pattern(pattern):
        raise ValueError("no event has such a name")
    return pattern


Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2_000,
        description="https address of the receiver, on a public host.",
        examples=["https://hooks.example.com/codeagent"],
    ),
]
EventTypes = Annotated[
    tuple[Annotated[str, Field(max_length=100), AfterValidator(_known)], ...],
    Field(
        min_length=1,
        max_length=50,
        description="Names of events of runs, `budget.threshold_reached`, families such as `run.*`, or `*`.",
        examples=[["run.completed", "run.failed", "run.input_required"]],
    ),
]
Description = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


class WebhookBody(Strict):
    """A webhook to make."""

    url: Url
    event_types: EventTypes
    description: Description = ""
    payload_format: PayloadFormat = PayloadFormat.STANDARD

    def fingerprint(self) -> str:
        """The same for requests that say the same."""
        said = self.url, self.event_types, self.description, self.payload_format
        return sha256(orjson.dumps(said)).hexdigest()


class WebhookPatch(Strict):
    """What is to be different; what is left out stays. Enabling goes on with what was waiting, and leaves out what has
    happened meanwhile."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Description | None = None
    payload_format: PayloadFormat | None = None
    status: Status | None = None

    def change(self) -> WebhookChange:
        return WebhookChange(self.url, self.event_types, self.description, self.payload_format, self.status)


class RotateSecretBody(Strict):
    """How long messages are signed with the former secret as well."""

    overlap_seconds: Whole = Field(default=86_400, ge=0, le=LONGEST_OVERLAP_SECONDS)


class WebhookModel(BaseModel):
    """A webhook without its secret. `disabled_reason` is `requested`, `gone` (the receiver answered 410) or `exhausted`
    (too many deliveries in a row were given up). Until `previous_until` the former secret signs as well."""

    id: str
    url: str
    event_types: list[str]
    description: str
    payload_format: PayloadFormat
    status: Status
    disabled_reason: Literal["", "requested", "gone", "exhausted"]
    previous_until: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        values = {name: getattr(webhook, name) for name in cls.model_fields if hasattr(webhook, name)}
        return cls(**{**values, "event_types": list(webhook.event_types)})


class ShownWebhookModel(WebhookModel):
    """`secret` is shown this once: null in the answer to a repeat of the request."""

    secret: str | None

    @classmethod
    def showing(cls, shown: Shown) -> Self:
        return cls(**WebhookModel.of(shown.webhook).model_dump(), secret=shown.secret)


class WebhookPage(BaseModel):
    items: list[WebhookModel]
    next_cursor: str | None


class AttemptModel(BaseModel):
    """One try. `status` is the receiver's; `error` is null, `bad_status`, `redirected`, `gone`, or says why there was
    no answer: `timeout`, `connection_failed`, `connection_lost`, `tls_failed`, `address_refused`, `no_answer` (it hung
    up, or what it said was not HTTP), `sender_lost`."""

    number: int
    ended_at: datetime
    status: int | None
    error: str | None
    latency_ms: int | None


class DeliveryModel(BaseModel):
    """An event on its way to a webhook. `event_id` is the message's `webhook-id`; `next_attempt_at` is null unless it
    is pending. `last_*` are of the newest attempt."""

    id: str
    webhook_id: str
    event_id: str
    event_type: str
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    last_latency_ms: int | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        values = {name: getattr(delivery, name) for name in cls.model_fields if hasattr(delivery, name)}
        pending = delivery.state is DeliveryState.PENDING
        return cls(**values, next_attempt_at=delivery.due_at if pending else None)


class DeliveryDetailModel(DeliveryModel):
    """With its newest attempts, oldest first."""

    log: list[AttemptModel]

    @classmethod
    def detailed(cls, delivery: Delivery, attempts: list[Attempt]) -> Self:
        log = [
            AttemptModel(**{name: getattr(attempt, name) for name in AttemptModel.model_fields}) for attempt in attempts
        ]
        return cls(**DeliveryModel.of(delivery).model_dump(), log=log)


class DeliveryPage(BaseModel):
    items: list[DeliveryModel]
    next_cursor: str | None
