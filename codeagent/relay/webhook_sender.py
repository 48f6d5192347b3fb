"""Sends what is due to webhooks: at least once, in no promised order, and nobody waits behind a slow receiver."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from codeagent import clock
from codeagent.encryption import NotOpened, SecretBox
from codeagent.errors import CodeAgentError, Conflict, Unavailable
from codeagent.relay.webhook_client import Answer, AttemptFailed, WebhookClient
from codeagent.rounds import Rounds
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.webhooks.deliveries import DeliveryState
from codeagent.webhooks.payload import Erased, body_of
from codeagent.webhooks.queue import Claim, DeliveryQueue, Ending
from codeagent.webhooks.schedule import DELAYS, delay_after, retry_after
from codeagent.webhooks.signing import signed_headers
from codeagent.webhooks.webhook import secret_place

log = get_logger(__name__)

LEASE = timedelta(seconds=60)
"""Of a claim. Longer than an attempt can take, so that it needs no renewal."""
_UNOPENED_DELAY = timedelta(minutes=1)
_SETTLE_PAUSE_SECONDS = 1.0
_MEASURE_SECONDS = 15.0
Result = TypeVar("Result")

Disable = Callable[[str, str, Literal["gone", "exhausted"]], Awaitable[bool]]
"""`disable(tenant_id, webhook_id, reason)`; True where it was enabled."""


@dataclass(frozen=True, slots=True)
class SenderPolicy:
    """`slots` attempts at once, `slots_each` of one webhook. A webhook is disabled once `disable_after` deliveries in a
    row were given up."""

    slots: int = 64
    slots_each: int = 8
    disable_after: int = 10
    idle_seconds: float = 0.5
    drain_seconds: float = 10.0


class WebhookSender:
    """One loop claims for free slots; each attempt is a task beside it."""

    def __init__(
        self,
        queue: DeliveryQueue,
        client: WebhookClient,
        box: SecretBox,
        disable: Disable,
        policy: SenderPolicy,
        *,
        chance: Callable[[], float] = random.random,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._queue = queue
        self._client = client
        self._box = box
        self._disable = disable
        self._policy = policy
        self._chance = chance
        self._now = now
        self._under_way: dict[asyncio.Task[None], Claim] = {}
        self._changed = asyncio.Event()
        self._rounds = Rounds("webhooks", self._round)
        self._measured = -_MEASURE_SECONDS

    async def start(self) -> None:
        await self._rounds.start()

    def wake(self) -> None:
        """There may be something to send."""
        self._changed.set()

    async def _round(self) -> float:
        self._changed.clear()
        await self.claim()
        await self._measure()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._policy.idle_seconds):
                await self._changed.wait()
        return 0.0

    async def claim(self) -> int:
        """Begins what is due, as far as slots are free; returns how many attempts that were."""
        free = self._policy.slots - len(self._under_way)
        if free <= 0:
            return 0
        under_way = Counter(claim.webhook_id for claim in self._under_way.values())
        claims = await self._queue.claim(free, under_way=under_way, most_each=self._policy.slots_each)
        for claim in claims:
            task = asyncio.create_task(self._deliver(claim))
            self._under_way[task] = claim
            task.add_done_callback(self._ended)
        return len(claims)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._changed.set()

    async def _deliver(self, claim: Claim) -> None:
        try:
            ending = await self._attempt(claim)
            if ending is not None:
                await self._settle(ending)
        except Exception:
            log.exception("webhook.failed", delivery_id=claim.delivery_id)

    async def _attempt(self, claim: Claim) -> Ending | None:
        """What comes of one attempt; None where none could be made and the claim was given back."""
        if claim.step > len(DELAYS):
            # Its senders have died as often as it may be tried.
            return Ending(claim, DeliveryState.FAILED, error="sender_lost", blamed=False)
        try:
            body = body_of(claim.event, claim.payload_format)
            place = secret_place(claim.tenant_id, claim.webhook_id)
            secrets = [self._box.open(sealed, place).decode() for sealed in claim.sealed_secrets]
        except Erased as erased:
            return Ending(claim, DeliveryState.FAILED, error=erased.code, blamed=False)
        except NotOpened as error:
            # Our own trouble, which an operator ends: it must not use up the receiver's attempts.
            log.error("webhook.secret_not_opened", webhook_id=claim.webhook_id, error=error.detail)
            await self._queue.give_back([claim], _UNOPENED_DELAY)
            return None
        headers = {
            "content-type": claim.payload_format.media_type,
            **signed_headers(secrets, claim.event.id, int(self._now().timestamp()), body),
        }
        if claim.step == 1:
            metrics.WEBHOOK_LAG.observe(claim.age.total_seconds())
        started = time.perf_counter()
        try:
            judged = self._answered(claim, await self._client.post(claim.url, headers, body))
        except AttemptFailed as failed:
            judged = replace(self._again(claim), error=failed.code)
        seconds = time.perf_counter() - started
        outcome = _outcome(judged)
        metrics.WEBHOOK_DELIVERIES.labels(outcome).inc()
        metrics.WEBHOOK_DURATION.labels(outcome).observe(seconds)
        return replace(judged, latency_ms=int(seconds * 1000))

    def _answered(self, claim: Claim, answer: Answer) -> Ending:
        if 200 <= answer.status < 300:
            return Ending(claim, DeliveryState.DELIVERED, status=answer.status)
        if answer.status == 410:
            return Ending(claim, DeliveryState.FAILED, status=answer.status, error="gone", blamed=False)
        asked = retry_after(answer.retry_after, self._now())
        code = "redirected" if 300 <= answer.status < 400 else "bad_status"
        return replace(self._again(claim, asked), status=answer.status, error=code)

    def _again(self, claim: Claim, asked: timedelta | None = None) -> Ending:
        delay = delay_after(claim.step, age=claim.age, chance=self._chance(), asked=asked)
        if delay is None:
            return Ending(claim, DeliveryState.FAILED)
        return Ending(claim, DeliveryState.PENDING, delay=delay)

    async def _settle(self, ending: Ending) -> None:
        claim = ending.claim
        if ending.error == "gone":
            # Before the delivery is settled: should we die in between, the webhook is disabled all the same.
            await self._patiently(lambda: self._switch_off(claim, "gone"))
        settled = await self._patiently(lambda: self._queue.settle(ending))
        if settled is None:
            metrics.WEBHOOK_DELIVERIES.labels("stale").inc()
        elif settled.exhausted >= self._policy.disable_after:
            await self._patiently(lambda: self._switch_off(claim, "exhausted"))

    async def _switch_off(self, claim: Claim, reason: Literal["gone", "exhausted"]) -> None:
        if await self._disable(claim.tenant_id, claim.webhook_id, reason):
            log.warning("webhook.disabled", webhook_id=claim.webhook_id, reason=reason)

    async def _patiently(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Until the database answers. What the lease did not last for is refused by its token."""
        while True:
            try:
                return await action()
            except (Unavailable, Conflict) as error:
                log.warning("webhook.settlement_waits", error=error.detail)
                await asyncio.sleep(_SETTLE_PAUSE_SECONDS)

    async def _measure(self) -> None:
        if time.monotonic() >= self._measured + _MEASURE_SECONDS:
            self._measured = time.monotonic()
            metrics.WEBHOOKS_DISABLED.set(await self._queue.disabled())

    async def stop(self) -> None:
        """Lets attempts end within the time for that, and gives back the others, which somebody makes again."""
        await self._rounds.stop()
        under_way = dict(self._under_way)
        if under_way:
            await asyncio.wait(under_way, timeout=self._policy.drain_seconds)
        unfinished = {task: claim for task, claim in under_way.items() if not task.done()}
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        if unfinished:
            with suppress(CodeAgentError):
                await self._queue.give_back(list(unfinished.values()))
        await self._client.close()


def _outcome(ending: Ending) -> str:
    if ending.state is DeliveryState.FAILED:
        return "gone" if ending.error == "gone" else "exhausted"
    return "delivered" if ending.state is DeliveryState.DELIVERED else "retried"
