"""The one loop of a run: 1 fold, 2 decide, 3 commit, 4 hand over; again when the stream has moved."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from codeagent import clock
from codeagent.agent import delegation
from codeagent.agent.decide import HANDLED, decide
from codeagent.agent.draft import Decision, NewEffect, Order
from codeagent.agent.state import RunState, evolve
from codeagent.broker.topics import RUN_COMMANDS
from codeagent.errors import Conflict, Unavailable, Unreadable
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import Cause, OutboxRow, effect_envelope
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.sealing import subject_of
from codeagent.eventlog.step import EffectRow, Step, Steps
from codeagent.eventlog.stored import StoredEvent, metadata_for, prepare
from codeagent.messages.envelope import Envelope, Event, Message, Payload
from codeagent.messages.events import RunEnded, RunFailed, RunSubmitted
from codeagent.messages.ids import run_stream
from codeagent.messages.subagents import SubagentCompleted, SubagentFailed, SubagentStarted
from codeagent.messages.values import ENDING_EVENTS
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.telemetry.traces import CONSUMER, current_traceparent, span

log = get_logger(__name__)

MOST_CONFLICTS = 8


class Outbound(Protocol):
    """Takes committed rows and sends them. Never blocks, never raises: what it loses, a sweep finds."""

    def events(self, row_id: UUID, key: str, events: Sequence[StoredEvent]) -> None: ...

    def effect(self, kind: str, message: Message) -> None: ...

    def answer(self, row: OutboxRow) -> None: ...


class StepLoop:
    """Handles the agent worker's messages. One run's messages come one after the other: its lane sees to that."""

    def __init__(
        self,
        database: Database,
        log_reader: EventLog,
        outbound: Outbound,
        *,
        events_topic: str,
        most_cached: int = 10_000,
    ) -> None:
        self._steps = Steps(database)
        self._subjects = database.subjects
        self._log = log_reader
        self._outbound = outbound
        self._topic = events_topic
        self._most_cached = most_cached
        self._states: OrderedDict[str, RunState] = OrderedDict()

    async def handle(self, message: Message) -> None:
        """Commits what the message leads to. Raises `Unavailable` when it should be tried again later."""
        if type(message.data) not in HANDLED:
            raise Unreadable(f"{message.envelope.name} is not for the agent worker", code="misdirected")
        started = time.perf_counter()
        name = message.envelope.name
        with span(f"process {name}", CONSUMER, parent=message.envelope.traceparent):
            for _ in range(MOST_CONFLICTS):
                if await self._attempt(message):
                    metrics.STEP_DURATION.labels(name).observe(time.perf_counter() - started)
                    return
        raise Unavailable("the run's stream keeps moving", code="conflict")

    async def _attempt(self, message: Message) -> bool:
        run_id = message.envelope.key
        state = await self._state(run_id)
        now = clock.now()
        decision = decide(state, message, now)
        step = await self._step(message, state, decision, now)
        try:
            await self._steps.commit(step)
        except Conflict:
            self._states.pop(run_id, None)
            metrics.APPEND_CONFLICTS.labels("run").inc()
            return False
        except BaseException:
            # Whether it was committed is not known: what is cached may be behind the stream.
            self._states.pop(run_id, None)
            raise
        self._keep(run_id, decision.state)
        self._hand_over(step, decision)
        self._observe(decision)
        return True

    async def _state(self, run_id: str) -> RunState:
        state = self._states.get(run_id)
        if state is None:
            state = RunState()
            async for stored in self._log.stream(run_stream(run_id)):
                state = evolve(state, stored.decode())
        return state

    def _keep(self, run_id: str, state: RunState) -> None:
        if state.status.terminal:
            self._states.pop(run_id, None)
            return
        self._states[run_id] = state
        self._states.move_to_end(run_id)
        if len(self._states) > self._most_cached:
            self._states.popitem(last=False)

    async def _step(self, message: Message, state: RunState, decision: Decision, now: datetime) -> Step:
        cause = replace(message.envelope, traceparent=current_traceparent() or message.envelope.traceparent)
        run_id = cause.key
        begun = decision.state.submitted
        owner = cause.actor_id if begun is None else begun.principal
        return Step(
            run_id=run_id,
            stream_id=run_stream(run_id),
            expected_version=state.version,
            tenant_id=cause.tenant_id,
            cause=cause,
            events=await self._prepared(cause, owner, state.version, decision.events, now),
            outbox_id=clock.new_uuid(),
            topic=self._topic,
            effects=[_row(effect) for effect in decision.effects],
            settled=decision.settled,
            handled=cause.id,
            cancel_effects=decision.cancel_effects,
            close=decision.ends_run,
            messages=[_message(cause, order, now) for order in decision.orders],
            key=await self._subjects.of(cause.tenant_id, owner),
        )

    async def _prepared(
        self, cause: Envelope, owner: str, version: int, events: Sequence[Event], now: datetime
    ) -> list[StoredEvent]:
        run_id = cause.key
        metadata = metadata_for(cause, run_id)
        return [
            prepare(
                event,
                stream_id=run_stream(run_id),
                version=version + number,
                event_id=clock.new_uuid(),
                tenant_id=cause.tenant_id,
                occurred_at=now,
                metadata=metadata,
                key=await self._subjects.of(cause.tenant_id, subject_of(event, owner)),
            )
            for number, event in enumerate(events, start=1)
        ]

    def _hand_over(self, step: Step, decision: Decision) -> None:
        if step.events:
            self._outbound.events(step.outbox_id, step.run_id, step.events)
        cause = Cause(step.cause.correlation_id, step.cause.id, step.cause.traceparent, clock.now())
        for effect in decision.effects:
            if effect.due_at is None:
                envelope = effect_envelope(effect.id, step.run_id, step.tenant_id, effect.command, cause)
                self._outbound.effect(effect.kind, Message(envelope, effect.command))
        for row in step.messages:
            self._outbound.answer(row)

    def _observe(self, decision: Decision) -> None:
        metrics.APPEND_EVENTS.labels("run").inc(len(decision.events))
        for event in decision.events:
            if isinstance(event, RunEnded):
                status = event.NAME.removeprefix("run.")
                metrics.RUN_TRANSITIONS.labels(status, event.status_reason).inc()
                begun = decision.state.submitted
                if begun is not None:
                    elapsed = clock.now().timestamp() - begun.deadline_at.timestamp() + begun.limits.deadline_seconds
                    metrics.RUN_DURATION.labels(status, event.status_reason).observe(elapsed)

    async def give_up(self, message: Message, error: Exception) -> None:
        """Ends a run whose message cannot be handled, without folding what may be the cause of the trouble."""
        run_id = message.envelope.key
        self._states.pop(run_id, None)
        stream_id = run_stream(run_id)
        head = await self._log.head(stream_id)
        newest = await self._log.read_stream(stream_id, head - 1, 1) if head else ()
        if newest and newest[0].type in ENDING_EVENTS:
            return
        failed = RunFailed(status_reason="internal_error", message=f"The run could not go on ({type(error).__name__}).")
        now = clock.now()
        orders = delegation.abandoned(run_id, await self._readable(message), failed)
        step = Step(
            run_id=run_id,
            stream_id=stream_id,
            expected_version=head,
            tenant_id=message.envelope.tenant_id,
            cause=message.envelope,
            events=await self._prepared(message.envelope, message.envelope.actor_id, head, [failed], now),
            outbox_id=clock.new_uuid(),
            topic=self._topic,
            handled=message.envelope.id,
            close=True,
            messages=[_message(message.envelope, order, now) for order in orders],
        )
        await self._steps.commit(step)
        self._outbound.events(step.outbox_id, run_id, step.events)
        for row in step.messages:
            self._outbound.answer(row)
        log.error("run.gave_up", run_id=run_id, error=type(error).__name__)

    async def _readable(self, message: Message) -> list[Payload]:
        """What tells whose child the run is, and whose parent, as far as it can be read."""
        known: list[Payload] = [message.data]
        async for stored in self._log.stream(run_stream(message.envelope.key)):
            if stored.type in _OF_FAMILY:
                with suppress(Unreadable):
                    known.append(stored.decode())
        return known


_OF_FAMILY = frozenset({RunSubmitted.NAME, SubagentStarted.NAME, SubagentCompleted.NAME, SubagentFailed.NAME})


def _message(cause: Envelope, order: Order, now: datetime) -> OutboxRow:
    """What one run tells another: of the same flow, because of the message that this run handles."""
    envelope = Envelope(
        id=order.id,
        name=order.data.NAME,
        version=order.data.VERSION,
        source=f"/tenants/{cause.tenant_id}/runs/{cause.key}",
        time=now,
        tenant_id=cause.tenant_id,
        key=order.run_id,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        actor_type="run",
        actor_id=cause.key,
        traceparent=cause.traceparent,
        expires_at=order.expires_at,
    )
    return OutboxRow(order.id, RUN_COMMANDS, envelope, order.data)


def _row(effect: NewEffect) -> EffectRow:
    return EffectRow(effect.id, effect.kind, effect.command, effect.due_at)
