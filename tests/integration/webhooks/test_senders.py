"""Several senders, dead senders, slow receivers: everything arrives, and nobody waits for another."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from codeagent.encryption import SecretBox
from codeagent.errors import Unavailable
from codeagent.eventlog.database import Database
from codeagent.messages import events
from codeagent.relay.webhook_client import Answer, WebhookClient
from codeagent.relay.webhook_sender import LEASE
from codeagent.webhooks.deliveries import DeliveryState
from codeagent.webhooks.queue import DeliveryQueue, Ending, Settled
from codeagent.webhooks.targets import Targets
from tests.integration.webhooks.relay import LOOPBACK, QUICK, Relay, World, author, client, relay_on, until, working
from tests.servers.webhook_receiver import WebhookReceiver, hang

STARTED = events.RunStarted()


class Died(BaseException):
    """What a sender ends by in the middle of its work, as a killed process does."""


class DyingClient(WebhookClient):
    """`before` or after its request was answered, its process dies."""

    def __init__(self, *, before: bool) -> None:
        super().__init__(Targets(LOOPBACK), ssl.create_default_context())
        self._before = before

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if not self._before:
            await super().post(url, headers, body)
        raise Died


async def run_to_death(relay: Relay) -> None:
    """Claims once, and dies in every attempt."""
    assert {type(end) for end in await relay.send()} == {Died}


@pytest.mark.parametrize("before", [True, False], ids=["before the request", "after the answer"])
async def test_what_a_dead_sender_had_claimed_is_sent_by_another_under_the_same_id(
    here: World, receiver: WebhookReceiver, before: bool
) -> None:
    shown = await here.webhook(receiver.url)
    [event_id] = await here.happen()
    dead = relay_on(here, through=DyingClient(before=before))
    await dead.dispatch()
    await run_to_death(dead)
    async with working(relay_on(here)) as alive:
        assert await alive.sender.claim() == 0  # the lease holds
        await here.pass_time(LEASE)
        await here.delivered(shown.webhook, 1)
    assert receiver.ids() == [event_id] * (1 if before else 2)
    first, second = await here.attempts(await here.only(shown.webhook))
    assert (first.number, first.error, first.status) == (1, "sender_lost", None)
    assert (second.number, second.error, second.status) == (2, None, 204)


async def test_a_delivery_whose_senders_always_die_ends_all_the_same(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen()
    dying = relay_on(here, through=DyingClient(before=True))
    await dying.dispatch()
    for _ in range(10):
        await run_to_death(dying)
        await here.pass_time(LEASE)
    async with working(relay_on(here)):
        delivery = await here.settled(shown.webhook, 11)
    assert (delivery.state, delivery.last_error) == ("failed", "sender_lost")
    assert receiver.received == []


async def test_an_outcome_that_comes_after_its_lease_was_lost_changes_nothing(
    here: World, receiver: WebhookReceiver
) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen()
    relay = relay_on(here)
    await relay.dispatch()
    [paused] = await relay.queue.claim(1, under_way={}, most_each=1)
    await here.pass_time(LEASE)
    async with working(relay):
        await here.delivered(shown.webhook, 1)
    late = await relay.queue.settle(Ending(paused, DeliveryState.FAILED, status=500, error="bad_status"))
    assert late is None
    delivery = await here.only(shown.webhook)
    assert (delivery.state, delivery.last_status, delivery.attempts) == ("delivered", 204, 2)


async def test_two_relays_share_the_work_and_send_each_message_once(here: World, receiver: WebhookReceiver) -> None:
    shown = await here.webhook(receiver.url)
    few = replace(QUICK, slots=4, slots_each=4)
    sent = []
    async with working(relay_on(here, few)), working(relay_on(here, few)):
        for _ in range(12):
            sent += await here.happen(*[STARTED] * 10)
        await here.delivered(shown.webhook, len(sent))
    assert sorted(receiver.ids()) == sorted(sent)
    assert all(delivery.attempts == 1 for delivery in await here.deliveries(shown.webhook))


async def test_senders_that_claim_at_once_get_different_deliveries_and_do_not_wait_for_each_other(
    here: World, receiver: WebhookReceiver
) -> None:
    await here.webhook(receiver.url)
    await here.happen(*[STARTED] * 10)
    relay = relay_on(here)
    await relay.dispatch()
    async with here.database.transaction() as another:  # a sender in the middle of its claim
        taken = await another.fetch("SELECT id FROM webhook_deliveries ORDER BY due_at LIMIT 3 FOR UPDATE")
        async with asyncio.timeout(5):
            claims = await relay.queue.claim(20, under_way={}, most_each=20)
    assert len({claim.delivery_id for claim in claims} - {row["id"] for row in taken}) == len(claims) == 7


async def test_a_slow_receiver_takes_its_own_slots_and_no_others(here: World, receiver: WebhookReceiver) -> None:
    with WebhookReceiver(behaviour=hang) as slow:
        stuck = await here.webhook(slow.url)
        await here.happen(*[STARTED] * 30)
        relay = relay_on(
            here, replace(QUICK, slots=4, slots_each=3, drain_seconds=0.1), through=client(timeout_seconds=60)
        )
        async with working(relay):
            await slow.until(3)
            swift = await here.webhook(receiver.url)
            sent = await here.happen(*[STARTED] * 20)
            await here.delivered(swift.webhook, 20)
            assert sorted(receiver.ids()) == sorted(sent)
            assert len(slow.received) == 3
        assert {delivery.attempts for delivery in await here.deliveries(stuck.webhook)} == {0}  # given back


async def test_attempts_under_way_hold_no_connection_of_the_database(
    here: World, receiver: WebhookReceiver, newest_database_url: str
) -> None:
    receiver.behaviour = hang
    await here.webhook(receiver.url)
    await here.happen(*[STARTED] * 3)
    await relay_on(here).dispatch()
    narrow = Database(newest_database_url, connections=1)
    sender = relay_on(replace(here, database=narrow), replace(QUICK, drain_seconds=0.1)).sender
    await sender.claim()
    await receiver.until(3)
    async with asyncio.timeout(5):
        assert await narrow.fetch("SELECT 1")
    await sender.stop()
    await narrow.close()


async def test_whoever_has_least_under_way_comes_first(here: World, receiver: WebhookReceiver) -> None:
    """Slots that come free go round: a webhook with much to do does not come first with all of it."""
    busy = await here.webhook(receiver.url)
    await here.happen(*[STARTED] * 10)
    relay = relay_on(here)
    await relay.dispatch()
    first = await relay.queue.claim(2, under_way={}, most_each=8)
    later = [await here.webhook(receiver.url) for _ in range(2)]
    await here.happen(STARTED)
    await relay.dispatch()
    second = await relay.queue.claim(4, under_way={busy.webhook.id: 2}, most_each=8)
    assert {claim.webhook_id for claim in first} == {busy.webhook.id}
    claimed = [claim.webhook_id for claim in second]
    assert sorted(claimed.count(shown.webhook.id) for shown in later) == [1, 1]
    assert claimed.count(busy.webhook.id) == 2
    assert await relay.queue.claim(9, under_way={busy.webhook.id: 8}, most_each=8) == []


async def test_without_the_key_that_sealed_the_secret_it_waits_and_loses_no_attempt(
    here: World, receiver: WebhookReceiver
) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen()
    locked = relay_on(here, box=SecretBox({"other": bytes(32)}))
    await locked.dispatch()
    await locked.sender.claim()

    async def given_back() -> bool:
        return (await here.only(shown.webhook)).attempts == 0

    await until(given_back)
    assert receiver.received == []
    await here.pass_time(timedelta(minutes=1))
    async with working(relay_on(here)):
        await here.delivered(shown.webhook, 1)
    assert (await here.only(shown.webhook)).attempts == 1


class Hindered(DeliveryQueue):
    """Its database is away for the first two settlements."""

    tries = 0

    async def settle(self, ending: Ending) -> Settled | None:
        self.tries += 1
        if self.tries <= 2:
            raise Unavailable("away")
        return await super().settle(ending)


async def test_what_was_sent_is_noted_once_the_database_is_back(
    here: World, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeagent.relay.webhook_sender._SETTLE_PAUSE_SECONDS", 0.05)
    shown = await here.webhook(receiver.url)
    await here.happen()
    relay = relay_on(here)
    hindered = Hindered(here.database, lease=LEASE)
    relay.sender._queue = hindered
    async with working(relay):
        await here.delivered(shown.webhook, 1)
    assert (hindered.tries, len(receiver.received)) == (3, 1)


async def test_a_sender_that_is_asked_to_stop_finishes_what_it_has_begun(
    here: World, receiver: WebhookReceiver
) -> None:
    async def slowly(_: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        writer.write(b"HTTP/1.1 204 X\r\n\r\n")
        await writer.drain()

    receiver.behaviour = slowly
    shown = await here.webhook(receiver.url)
    await here.happen()
    async with working(relay_on(here)):
        await receiver.until(1)
    delivery = await here.only(shown.webhook)
    assert (delivery.state, delivery.attempts) == ("delivered", 1)


async def test_a_redelivery_that_is_asked_for_during_an_attempt_is_that_attempt(
    here: World, receiver: WebhookReceiver
) -> None:
    shown = await here.webhook(receiver.url)
    await here.happen()
    relay = relay_on(here)
    await relay.dispatch()
    [claim] = await relay.queue.claim(1, under_way={}, most_each=1)
    await here.webhooks.redeliver(author(), shown.webhook.id, claim.delivery_id)
    assert await relay.queue.claim(1, under_way={}, most_each=1) == []
    assert await relay.queue.settle(Ending(claim, DeliveryState.DELIVERED, status=204)) is not None
