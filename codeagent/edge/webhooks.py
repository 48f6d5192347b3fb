"""`/v1/webhooks`: whom to tell of runs, and what was sent to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from codeagent.edge.accept import idempotency_key
from codeagent.edge.answers import NO_STORE, answer, made
from codeagent.edge.authors import author_of
from codeagent.edge.context import Context, WebhookReader, WebhookWriter
from codeagent.edge.pages import Limit, PageCursor, page_answer
from codeagent.edge.parameters import IfMatch, RequestKey
from codeagent.edge.preconditions import check_match
from codeagent.edge.problems import errors_of
from codeagent.edge.webhook_models import (
    DeliveryDetailModel,
    DeliveryModel,
    DeliveryPage,
    RotateSecretBody,
    ShownWebhookModel,
    WebhookBody,
    WebhookModel,
    WebhookPage,
    WebhookPatch,
)
from codeagent.messages.ids import derived_uuid, typed_id
from codeagent.webhooks.deliveries import DeliveryState
from codeagent.webhooks.webhook import WebhookOrder

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], responses=errors_of(400, 401, 403, 404, 422, 503))


@router.post(
    "",
    status_code=201,
    response_model=ShownWebhookModel,
    summary="Make a webhook",
    responses={
        200: {
            "model": ShownWebhookModel,
            "description": "A repeat: it was made before; its secret is not shown again.",
        },
        **errors_of(409, 501),
    },
)
async def create_webhook(
    body: WebhookBody,
    context: Context,
    caller: WebhookWriter,
    key: RequestKey = None,
) -> Response:
    """The answer shows the secret that messages are signed with, this once. Events from now on are sent. The host must
    have public addresses only, now and whenever something is sent."""
    repeat = idempotency_key(key)
    order = WebhookOrder(
        id=typed_id("whk", derived_uuid(caller.tenant_id, caller.id, "POST /v1/webhooks", repeat)),
        url=body.url,
        event_types=body.event_types,
        description=body.description,
        payload_format=body.payload_format,
        fingerprint=body.fingerprint(),
    )
    shown = await context.webhooks.create(author_of(caller), order)
    model, location = ShownWebhookModel.showing(shown), f"/v1/webhooks/{shown.webhook.id}"
    return made(model, location, repeated=shown.secret is None, version=shown.webhook.version, cache=NO_STORE)


@router.get("", response_model=WebhookPage, summary="List webhooks, newest first")
async def list_webhooks(
    context: Context, caller: WebhookReader, limit: Limit = 50, cursor: PageCursor = None
) -> Response:
    """Those of the tenant, disabled ones included, without their secrets."""
    found, following = await context.webhooks.page(caller.tenant_id, after=cursor, limit=limit)
    page = WebhookPage(items=[WebhookModel.of(webhook) for webhook in found], next_cursor=following)
    return page_answer(page, "/v1/webhooks", limit=limit, cursor=following)


@router.get("/{webhook_id}", response_model=WebhookModel, summary="A webhook, without its secret")
async def get_webhook(webhook_id: str, context: Context, caller: WebhookReader) -> Response:
    """What is known of it, with the ETag that changing it takes."""
    webhook = await context.webhooks.find(caller.tenant_id, webhook_id)
    return answer(WebhookModel.of(webhook), version=webhook.version)


@router.patch(
    "/{webhook_id}",
    response_model=WebhookModel,
    summary="Change a webhook, enable or disable it",
    responses=errors_of(412, 428),
)
async def update_webhook(
    webhook_id: str, body: WebhookPatch, context: Context, caller: WebhookWriter, if_match: IfMatch = None
) -> Response:
    """While it is disabled nothing is sent. Enabling sends what was waiting; what happens meanwhile is left out."""
    webhook = await context.webhooks.find(caller.tenant_id, webhook_id)
    check_match(if_match, webhook.version)
    changed = await context.webhooks.update(author_of(caller), webhook, body.change())
    return answer(WebhookModel.of(changed), version=changed.version)


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook", responses=errors_of(412, 428))
async def delete_webhook(
    webhook_id: str, context: Context, caller: WebhookWriter, if_match: IfMatch = None
) -> Response:
    """Nothing more is sent, and the log of its deliveries goes with it."""
    webhook = await context.webhooks.find(caller.tenant_id, webhook_id)
    check_match(if_match, webhook.version)
    await context.webhooks.delete(author_of(caller), webhook)
    return Response(status_code=204)


@router.post(
    "/{webhook_id}/rotate-secret",
    response_model=ShownWebhookModel,
    summary="Replace the secret",
    responses=errors_of(412, 428, 501),
)
async def rotate_secret(
    webhook_id: str,
    context: Context,
    caller: WebhookWriter,
    body: RotateSecretBody | None = None,
    if_match: IfMatch = None,
) -> Response:
    """Shows the new secret, this once. Messages carry the signatures of both until the overlap ends, so that receivers
    can be changed over at leisure."""
    wanted = body if body is not None else RotateSecretBody()
    webhook = await context.webhooks.find(caller.tenant_id, webhook_id)
    check_match(if_match, webhook.version)
    overlap = timedelta(seconds=wanted.overlap_seconds)
    shown = await context.webhooks.rotate_secret(author_of(caller), webhook, overlap)
    return answer(ShownWebhookModel.showing(shown), version=shown.webhook.version, cache=NO_STORE)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    response_model=DeliveryModel,
    summary="Send a test message",
    responses=errors_of(409),
)
async def test_webhook(webhook_id: str, context: Context, caller: WebhookWriter) -> Response:
    """Sends one `webhook.tested`, whatever the webhook is told of otherwise. It counts as a change of the webhook: the
    ETag is then another one. Look at the delivery to see what came of it."""
    delivery = await context.webhooks.test(author_of(caller), webhook_id)
    return _accepted(DeliveryModel.of(delivery))


def _accepted(delivery: DeliveryModel) -> Response:
    location = f"/v1/webhooks/{delivery.webhook_id}/deliveries/{delivery.id}"
    return answer(delivery, 202, headers={"Location": location})


@router.get("/{webhook_id}/deliveries", response_model=DeliveryPage, summary="What was sent, newest first")
async def list_deliveries(
    webhook_id: str,
    context: Context,
    caller: WebhookReader,
    limit: Limit = 50,
    cursor: PageCursor = None,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
) -> Response:
    """Events on their way to the webhook, and those of the last weeks (a month, unless the operator says otherwise)."""
    webhook = await context.webhooks.find(caller.tenant_id, webhook_id)
    found, following = await context.webhooks.deliveries.page(
        caller.tenant_id, webhook.id, state=state, after=cursor, limit=limit
    )
    page = DeliveryPage(items=[DeliveryModel.of(delivery) for delivery in found], next_cursor=following)
    path = f"/v1/webhooks/{webhook.id}/deliveries"
    return page_answer(page, path, state=state, limit=limit, cursor=following)


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}", response_model=DeliveryDetailModel, summary="A delivery and its attempts"
)
async def get_delivery(webhook_id: str, delivery_id: str, context: Context, caller: WebhookReader) -> Response:
    """Each attempt with the receiver's status, or what kept it from having one, and how long it took."""
    webhook = await context.webhooks.find(caller.tenant_id, webhook_id)
    delivery = await context.webhooks.deliveries.find(caller.tenant_id, webhook.id, delivery_id)
    attempts = await context.webhooks.deliveries.attempts(caller.tenant_id, delivery.id)
    return answer(DeliveryDetailModel.detailed(delivery, list(attempts)))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=DeliveryModel,
    summary="Send it again",
    responses=errors_of(409),
)
async def redeliver(webhook_id: str, delivery_id: str, context: Context, caller: WebhookWriter) -> Response:
    """At once, and on the whole schedule again should that fail. The message keeps its `webhook-id`. Like a test it
    gives the webhook another ETag."""
    delivery = await context.webhooks.redeliver(author_of(caller), webhook_id, delivery_id)
    return _accepted(DeliveryModel.of(delivery))
