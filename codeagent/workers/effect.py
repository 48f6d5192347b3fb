"""The one loop of an effect: claim it, acknowledge, perform it beside the consumer, record it under its token."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Literal, Protocol
from uuid import UUID

from codeagent import clock
from codeagent.errors import CodeAgentError, Unavailable
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Claim, EffectsLedger, OutboxRow, Verdict
from codeagent.eventlog.notices import CANCELED, listen
from codeagent.messages.envelope import Message
from codeagent.messages.values import Outcome
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.telemetry.traces import CONSUMER, span
from codeagent.workers.ended import Began, Ended
from codeagent.workers.resting import Resting, rest_seconds
from codeagent.workers.step import Outbound
from codeagent.workers.waiting import until_available

log = get_logger(__name__)

Stopped = Literal["canceled", "lost", "draining"]


@dataclass(slots=True)
class Work:
    """One claimed effect being performed."""

    message: Message
    claim: Claim
    started: float = field(default_factory=time.perf_counter)
    stopped: Stopped | None = None
    recording: bool = False
    waits: bool = False
    """Its performer says so while it only waits for its turn elsewhere: others may have the slot."""
    untried: bool = False
    """Its performer says so where nobody could be asked: for a while, that is no attempt."""
    task: asyncio.Task[None] | None = None
    after: tuple[asyncio.Task[None], ...] = ()  # tasks of earlier claims, which have to end first
    began: Began | None = None
    """What its performer is about to do, once it says so."""
    memo: bytes | None = None
    """What its performer wants the next claim to know, should this one not end it."""

    @property
    def elapsed_seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def age_seconds(self) -> float:
        return (clock.now() - self.message.envelope.time).total_seconds()


class Performer(Protocol):
    """Does the work of one kind of effect. `perform` may raise; `ended` then says what that means."""

    kind: str
    answers_topic: str

    async def perform(self, work: Work) -> Ended: ...

    def ended(self, work: Work, outcome: Outcome, error: BaseException | None) -> Ended: ...


@dataclass(frozen=True, slots=True)
class EffectPolicy:
    """`slots` effects at once, and `most_waiting` beside them that only wait for their turn; a claim lasts
    `lease_seconds` and is renewed at a third of it; after `max_attempts` claims an effect ends `worker_lost`. Those in
    which nobody could be asked do not count until `patience_seconds` after the effect was asked for."""

    slots: int
    most_waiting: int = 1_000
    lease_seconds: float = 30.0
    max_attempts: int = 4
    patience_seconds: float = 600.0
    sweep_seconds: float = 1.0


class EffectLoop:
    """Performs at most `slots` effects at once, those that wait not counted. A command that finds no free slot is
    acknowledged unclaimed: its row stays in the ledger, where a free slot looks for the oldest. While the loop is not
    `is_able`, no slot is free."""

    def __init__(
        self,
        database: Database,
        ledger: EffectsLedger,
        performer: Performer,
        outbound: Outbound,
        policy: EffectPolicy,
        is_able: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._is_able = is_able
        self._ledger = ledger
        self._performer = performer
        self._outbound = outbound
        self._policy = policy
        self._active: dict[UUID, Work] = {}
        self._turned_away = False
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        self._claimed = 0
        self._resting = Resting()

    async def start(self) -> None:
        loops = (self._renew_regularly(), self._look_for_due(), listen(self._database, CANCELED, self.notified))
        self._tasks = {asyncio.create_task(loop) for loop in loops}

    async def handle(self, message: Message) -> None:
        """Claims the command's effect if a slot is free, and returns before it is performed."""
        if self._draining or self._free() <= 0:
            self._turned_away = True
            return
        self._claimed += 1  # the slot is taken while the claim is on its way
        try:
            claim = await self._ledger.claim(message.envelope.id)
        finally:
            self._claimed -= 1
        if claim is not None:
            metrics.EFFECT_CLAIMS.labels(self._performer.kind, "message").inc()
            self._begin(Work(message, claim))

    def _free(self) -> int:
        if not self._is_able():
            return 0
        taken = len(self._active) + self._claimed
        waiting = min(sum(work.waits for work in self._active.values()), self._policy.most_waiting)
        return self._policy.slots - (taken - waiting)

    def _begin(self, work: Work) -> None:
        older = self._active.get(work.claim.effect_id)
        if older is not None:
            # Paused past its lease, a worker may be the one to take its own work over.
            self._stop(older, "lost")
            work.after = tuple(task for task in (*older.after, older.task) if task is not None)
        self._active[work.claim.effect_id] = work
        metrics.EFFECTS_ACTIVE.labels(self._performer.kind).set(len(self._active))
        work.task = asyncio.create_task(self._perform(work))

    async def _perform(self, work: Work) -> None:
        envelope = work.message.envelope
        try:
            with span(f"process {envelope.name}", CONSUMER, parent=envelope.traceparent):
                ended = await self._ended(work)
                if ended is not None:
                    await self._record(work, ended)
        except asyncio.CancelledError:
            log.info("effect.abandoned", effect_id=str(work.claim.effect_id), why=work.stopped)
        except Exception:
            # The row stays claimed until its lease runs out; then another attempt is made.
            log.exception("effect.failed", effect_id=str(work.claim.effect_id), run_id=envelope.key)
        finally:
            if self._active.get(work.claim.effect_id) is work:
                del self._active[work.claim.effect_id]
            metrics.EFFECTS_ACTIVE.labels(self._performer.kind).set(len(self._active))
            if self._turned_away:
                self._look.set()

    async def _ended(self, work: Work) -> Ended | None:
        if work.claim.cancel_requested:
            return self._performer.ended(work, Outcome.CANCELED, None)
        if work.claim.attempt > self._policy.max_attempts:
            return self._performer.ended(work, Outcome.WORKER_LOST, None)
        try:
            return await self._performed(work)
        except asyncio.CancelledError:
            if work.stopped != "canceled":
                raise
            if work.task is not None:
                work.task.uncancel()
            return self._performer.ended(work, Outcome.CANCELED, None)

    async def _performed(self, work: Work) -> Ended | None:
        """None when it is to be tried again: a cancel ends the wait for that as it ends the work."""
        if work.after:
            await asyncio.wait(work.after)
        try:
            return await self._performer.perform(work)
        except Exception as error:
            bug = not isinstance(error, CodeAgentError)
            if bug:
                log.exception("effect.failed", effect_id=str(work.claim.effect_id))
            if bug or getattr(error, "retryable", False):
                counts = not work.untried or work.age_seconds >= self._policy.patience_seconds
                if not counts or work.claim.attempt < self._policy.max_attempts:
                    await self._retry_later(work, error, counts)
                    return None
            return self._performer.ended(work, Outcome.FAILED, error)

    async def _retry_later(self, work: Work, error: Exception, counts: bool) -> None:
        """Lets the claim go, so that this or another worker tries again after a rest without a slot. Waits for the
        database as an outcome does: a memo tells what has been paid for."""
        claim, rest = work.claim, rest_seconds(error, work.claim.attempt, work.age_seconds, counted=counts)
        log.warning("effect.again", effect_id=str(claim.effect_id), error=type(error).__name__, rest_seconds=rest)
        self._resting.add(work.message.envelope.key, rest)
        expire = partial(self._ledger.expire, claim, work.memo, timedelta(seconds=rest), counted=counts)
        await until_available(expire, "effect.expire_waits")
        asyncio.get_running_loop().call_later(rest, self._look.set)

    async def _record(self, work: Work, ended: Ended) -> None:
        """Until the database has answered: an outcome is never thrown away while its claim may hold."""
        cause = work.message.envelope
        key = await until_available(partial(self._ledger.key_of, work.claim), "effect.key_waits")
        facts, answer_envelope = ended.facts(cause, work.began, key), ended.envelope(cause)
        answer = OutboxRow(answer_envelope.id, self._performer.answers_topic, answer_envelope, ended.answer)
        work.recording = True
        record = partial(self._ledger.record, replace(work.claim, key=key), facts, answer)
        verdict = await until_available(record, "effect.record_waits")
        metrics.EFFECT_OUTCOMES.labels(self._performer.kind, verdict.value).inc()
        if verdict is Verdict.RECORDED:
            self._outbound.answer(answer)
        elif verdict is Verdict.STALE:
            log.warning("effect.stale", effect_id=str(work.claim.effect_id), attempt=work.claim.attempt)

    async def _renew_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._policy.lease_seconds / 3)
            await self._guarded(self._renew)
            await self._guarded(self._hasten)

    async def _hasten(self, run_id: str | None = None) -> None:
        """What rests and is to stop is due at once: without a run, what no notice has told of."""
        if await self._ledger.hasten(run_id):
            self._look.set()

    async def _renew(self, run_id: str | None = None) -> None:
        works = [work for work in self._active.values() if run_id is None or work.message.envelope.key == run_id]
        if not works:
            return
        held = await self._ledger.renew([work.claim for work in works])
        for work in works:
            effect_id = work.claim.effect_id
            if effect_id not in held:
                self._stop(work, "lost")
            elif held[effect_id]:
                self._stop(work, "canceled")

    def _stop(self, work: Work, why: Stopped) -> None:
        # An outcome on its way into the database is left alone: the database decides whether it still counts.
        if work.recording and why != "draining":
            return
        if work.stopped is None and work.task is not None:
            work.stopped = why
            work.task.cancel()

    async def _look_for_due(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._policy.sweep_seconds):
                    await self._look.wait()
            self._look.clear()
            await self._guarded(self._claim_due)

    async def _claim_due(self) -> None:
        free = self._free()
        if self._draining or free <= 0:
            return
        fresh, self._turned_away = self._turned_away, False
        found = await self._ledger.claim_due(free, fresh=fresh)
        if len(found) == free:
            self._turned_away = fresh
        for claim, message in found:
            metrics.EFFECT_CLAIMS.labels(self._performer.kind, "ledger").inc()
            self._begin(Work(message, claim))

    async def _guarded(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        except Unavailable as error:
            log.warning("effects.waits", kind=self._performer.kind, error=error.detail)
        except Exception:
            log.exception("effects.round_failed", kind=self._performer.kind)

    def notified(self, run_id: str) -> None:
        """A run asks its effects to stop: looks at once which of those that are here, or rest, are meant."""
        is_here = any(work.message.envelope.key == run_id for work in self._active.values())
        for look in ([self._renew] if is_here else []) + ([self._hasten] if run_id in self._resting else []):
            task = asyncio.get_running_loop().create_task(self._guarded(partial(look, run_id)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout_seconds: float) -> None:
        """Finishes what it can in time and gives the rest back, so that others take it at once."""
        self._draining = True
        tasks = [work.task for work in self._active.values() if work.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
        left = list(self._active.values())
        for work in left:
            self._stop(work, "draining")
        await asyncio.gather(*(work.task for work in left if work.task is not None), return_exceptions=True)
        if left:
            with contextlib.suppress(Unavailable):
                await self._ledger.release({work.claim: work.memo for work in left})
        loops, self._tasks = self._tasks, set()
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
