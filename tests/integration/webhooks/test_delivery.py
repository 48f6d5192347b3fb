"""Events of runs reach those who want them: signed, at least once, on a schedule that ends."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from standardwebhooks import WebhookVerificationError

from codeagent import clock
from codeagent.budgets.budget import Action, BudgetOrder, BudgetScope, Period, Unit
from codeagent.budgets.registry import Budgets
from codeagent.budgets.thresholds import announce_thresholds
from codeagent.errors import Conflict
from codeagent.messages import events
from codeagent.messages.ids import typed_id
from codeagent.relay.webhook_sender import SenderPolicy
from codeagent.webhooks.deliveries import DeliveryState
from codeagent.webhooks.payload import PayloadFormat
from codeagent.webhooks.schedule import DELAYS
from codeagent.webhooks.webhook import Status, WebhookChange
from tests.integration.eventlog.steps import APPROVAL, TENANT, waiting
from tests.integration.webhooks.relay import QUICK, Relay, World, author, relay_on, working
from tests.servers.webhook_receiver import WebhookReceiver, answer

DAY = date(2026, 11, 23)
STARTED, ENDED = events.RunStarted(), events.RunCompleted(message="done")


async def test_what_happens_is_sent_to_those_who_want_it_signed(here: World, receiver: WebhookReceiver) -> None:
    await here.happen(ENDED)  # before anybody asked
    shown = await here.webhook(receiver.url, "run.completed")
    await here.webhook(receiver.url, "*", tenant_id="ten_other")
    [_, ended] = await here.happen(STARTED, ENDED)
    async with working(relay_on(here)):
        await here.delivered(shown.webhook, 1)
    [request] = receiver.received
    assert shown.secret is not None
    payload = request.verified(shown.secret)
    assert (payload["type"], payload["data"]["sequence"], payload["data"]["event"]["message"]) == (
        "run.completed",
        2,
        "done",
    )
    assert request.path == "/hook?token=t0"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("CodeAgent/")
    assert request.message_id == ended
    delivery = await here.only(shown.webhook)
    assert (delivery.state, delivery.attempts, delivery.last_status, delivery.event_id) == ("delivered", 1, 204, ended)


async def test_a_webhook_may_ask_for_cloudevents(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url, form=PayloadFormat.CLOUDEVENTS)
    [happened] = await here.happen(STARTED)
    async with working(relay_on(here)):
        [request] = await receiver.until(1)
    assert request.headers["content-type"] == "application/cloudevents+json"
    document = json.loads(request.body)
    assert (document["id"], document["type"], document["specversion"]) == (
        happened,
        "io.codeagent.run.started.v1",
        "1.0",
    )
    assert request.verified(str(shown.secret)) == document


async def test_people_are_told_that_a_run_waits_for_them(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url, "run.input_required")
    await here.happen(STARTED, waiting())
    async with working(relay_on(here)):
        [request] = await receiver.until(1)
    payload = request.verified(str(shown.secret))
    asked = payload["data"]["event"]["request"]
    assert (payload["type"], asked["tool"], asked["approval_id"]) == ("run.input_required", "shell", APPROVAL)
    assert payload["data"]["run_id"].startswith("run_")


async def test_people_are_told_of_a_budget_that_is_nearly_spent(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url, "budget.threshold_reached")
    budget_id = typed_id("bud", clock.new_uuid())
    scope = BudgetOrder(budget_id, "all", BudgetScope.TENANT, None, Period.DAY, Unit.USD, Decimal(10), Action.WARN, "f")
    await Budgets(here.walled).create(author(), scope)
    await here.database.write(
        "INSERT INTO usage_by_day (tenant_id, day, model, principal_id, cost_usd) VALUES ($1, $2, 'm', 'usr_1', 8)",
        TENANT,
        DAY,
    )
    assert await announce_thresholds(here.database, DAY) == 1
    async with working(relay_on(here)):
        [request] = await receiver.until(1)
    told = request.verified(str(shown.secret))
    assert told["type"] == "budget.threshold_reached"
    assert (told["data"]["budget_id"], told["data"]["href"]) == (budget_id, f"/v1/budgets/{budget_id}")
    assert (told["data"]["event"]["percent"], told["data"]["event"]["spent"]) == (80, "8")


async def test_each_event_is_dispatched_once_however_often_the_log_is_read(
    here: World, receiver: WebhookReceiver
) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen(STARTED, ENDED)
    relay = relay_on(here)
    await relay.dispatch()
    await here.database.write("DELETE FROM projections WHERE name = 'webhooks'")
    await relay.dispatch()
    assert [delivery.event_type for delivery in await here.deliveries(shown.webhook)] == [
        "run.started",
        "run.completed",
    ]


async def test_after_a_rotation_both_secrets_sign_until_the_overlap_ends(
    here: World, receiver: WebhookReceiver
) -> None:
    former = await here.webhook(receiver.url)
    current = await here.webhooks.rotate_secret(author(), former.webhook, timedelta(hours=1))
    assert former.secret is not None
    assert current.secret is not None
    async with working(relay_on(here)):
        await here.happen()
        [during] = await receiver.until(1)
        await here.pass_time(timedelta(hours=1))
        await here.happen()
        [_, after] = await receiver.until(2)
    assert during.verified(former.secret) == during.verified(current.secret)
    assert after.verified(current.secret)["type"] == "run.started"
    with pytest.raises(WebhookVerificationError):
        after.verified(former.secret)


async def test_the_whole_schedule_is_gone_through_and_then_the_delivery_is_given_up(
    here: World, receiver: WebhookReceiver
) -> None:
    receiver.behaviour = answer(500)
    shown = await here.webhook(receiver.url)
    await here.happen()
    async with working(relay_on(here)):
        for number in range(1, len(DELAYS)):
            delivery = await here.settled(shown.webhook, number)
            assert (delivery.state, delivery.last_status, delivery.last_error) == ("pending", 500, "bad_status")
            waits = delivery.due_at - delivery.updated_at
            assert abs(waits - DELAYS[number]) < timedelta(seconds=1)
            await here.pass_time(waits)
        delivery = await here.settled(shown.webhook, len(DELAYS))
    assert (delivery.state, delivery.attempts) == ("failed", 10)
    assert len(set(receiver.ids())) == 1
    assert len(receiver.received) == 10
    signed_at = {int(request.headers["webhook-timestamp"]) for request in receiver.received}
    assert max(signed_at) - min(signed_at) < 60
    assert [attempt.number for attempt in await here.attempts(delivery)] == list(range(1, 11))
    assert (await here.now(shown.webhook)).status is Status.ENABLED


async def test_a_receiver_that_asks_for_time_is_given_it(here: World, receiver: WebhookReceiver) -> None:
    receiver.behaviours = [answer(503, retry_after="3600")]
    shown = await here.webhook(receiver.url)
    await here.happen()
    async with working(relay_on(here)):
        delivery = await here.settled(shown.webhook, 1)
        assert abs(delivery.due_at - delivery.updated_at - timedelta(hours=1)) < timedelta(seconds=1)
        await here.pass_time(timedelta(hours=1))
        await here.delivered(shown.webhook, 1)


def _disabling_after(count: int) -> SenderPolicy:
    return replace(QUICK, disable_after=count)


async def give_up(here: World, relay: Relay, count: int) -> None:
    """So many deliveries that have one attempt left, which fails."""
    await here.happen(*[STARTED] * count)
    await relay.dispatch()
    await here.database.write("UPDATE webhook_deliveries SET step = $1 WHERE state = 'pending'", len(DELAYS) - 1)
    await relay.send()


async def test_a_webhook_is_disabled_when_too_many_deliveries_in_a_row_were_given_up(
    here: World, receiver: WebhookReceiver
) -> None:
    receiver.behaviour = answer(500)
    shown, relay = await here.webhook(receiver.url), relay_on(here, _disabling_after(3))
    await give_up(here, relay, 2)
    receiver.behaviours = [answer(200)]
    await here.happen()  # one that arrives: the count begins anew
    await relay.dispatch()
    await relay.send()
    await give_up(here, relay, 2)
    assert len(receiver.received) == 5
    assert (await here.now(shown.webhook)).status is Status.ENABLED
    await give_up(here, relay, 1)
    assert (await here.now(shown.webhook)).status is Status.DISABLED
    assert (await here.now(shown.webhook)).disabled_reason == "exhausted"
    facts = await here.facts(shown.webhook)
    assert facts[-1] == ("webhook.disabled", {"webhook_id": shown.webhook.id, "reason": "exhausted"})


async def test_a_receiver_that_is_gone_is_left_alone_and_what_waits_goes_out_when_it_is_back(
    here: World, receiver: WebhookReceiver
) -> None:
    receiver.behaviours = [answer(500), answer(410)]
    shown, relay = await here.webhook(receiver.url), relay_on(here)
    for _ in range(2):
        await here.happen()
        await relay.dispatch()
        await relay.send()
    waiting, gone = await here.deliveries(shown.webhook)
    assert (gone.state, gone.last_status, gone.last_error) == ("failed", 410, "gone")
    webhook = await here.now(shown.webhook)
    assert (webhook.status, webhook.disabled_reason, webhook.version) == (Status.DISABLED, "gone", 2)
    with pytest.raises(Conflict):
        await here.webhooks.redeliver(author(), webhook.id, gone.id)
    await here.happen()  # while it is disabled: never told
    await relay.dispatch()
    await here.pass_time(DELAYS[1])
    assert await relay.sender.claim() == 0
    await here.webhooks.update(author(), webhook, WebhookChange(status=Status.ENABLED))
    async with working(relay):
        await here.delivered(shown.webhook, 1)
        [after] = await here.happen()
        await here.delivered(shown.webhook, 2)
    assert receiver.ids() == [waiting.event_id, gone.event_id, waiting.event_id, after]
    assert [name for name, _ in await here.facts(shown.webhook)] == [
        "webhook.created",
        "webhook.disabled",
        "webhook.updated",
    ]


async def test_nothing_is_sent_for_a_tenant_that_is_suspended(here: World, receiver: WebhookReceiver) -> None:
    await here.database.write(
        "INSERT INTO tenants (id, version, name, suspended_at) VALUES ($1, 1, 'T', now())", TENANT
    )
    shown = await here.webhook(receiver.url)
    await here.happen()
    relay = relay_on(here)
    await relay.dispatch()
    assert await relay.sender.claim() == 0
    await here.database.write("UPDATE tenants SET suspended_at = NULL")
    async with working(relay):
        await here.delivered(shown.webhook, 1)


async def test_an_erased_event_is_not_told_and_nobody_is_blamed(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url)
    [event_id] = await here.happen()
    await here.database.write("UPDATE events SET data = NULL WHERE event_id = $1", event_id)
    async with working(relay_on(here, _disabling_after(1))):
        delivery = await here.settled(shown.webhook, 1)
    assert (delivery.state, delivery.last_error) == (DeliveryState.FAILED, "erased")
    assert receiver.received == []
    assert (await here.now(shown.webhook)).status is Status.ENABLED


async def test_a_redelivery_is_the_same_message_on_a_schedule_begun_anew(
    here: World, receiver: WebhookReceiver
) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen()
    async with working(relay_on(here)):
        await here.delivered(shown.webhook, 1)
        await here.pass_time(timedelta(days=20))  # older than a delivery lives
        receiver.behaviours = [answer(500)]
        first = await here.only(shown.webhook)
        await here.webhooks.redeliver(author(), shown.webhook.id, first.id)
        failed = await here.settled(shown.webhook, 2)
        assert (failed.state, failed.attempts) == ("pending", 2)
        assert abs(failed.due_at - failed.updated_at - DELAYS[1]) < timedelta(seconds=1)
        await here.webhooks.redeliver(author(), shown.webhook.id, first.id)  # no need to wait for that
        await here.settled(shown.webhook, 3)
    assert (await here.only(shown.webhook)).state == "delivered"
    assert len(set(receiver.ids())) == 1
