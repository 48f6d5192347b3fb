"""The composition root: builds every object of every role from the settings, here and nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from codeagent.broker.consumer import GroupConsumer
from codeagent.broker.delivery import Delivery, GiveUp, HandleMessage
from codeagent.broker.topics import (
    AGENT_INPUTS,
    AGENT_WORKER,
    PROVIDER_COMMANDS,
    PROVIDER_EVENTS,
    PROVIDER_WORKER,
    RUN_DELTAS,
    RUN_EVENTS,
    SANDBOX_COMMANDS,
    SANDBOX_WORKER,
)
from codeagent.budgets.reservations import CallReservations, forget_call_reservations
from codeagent.cli.parts import Parts, assemble, finish
from codeagent.cli.process import Process
from codeagent.cli.secrets import provider_keys
from codeagent.clock import new_uuid
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.effects import EffectsLedger
from codeagent.eventlog.facts import forget_origins
from codeagent.eventlog.sandbox_claims import SandboxLedger, waiting_for_room
from codeagent.eventlog.snapshots import forget_old
from codeagent.flags.features import LIVE_DELTAS
from codeagent.identity.revocations import forget_ended
from codeagent.identity.sessions import SessionPolicy, forget_logins
from codeagent.messages.envelope import Message
from codeagent.messages.mcp_calls import CallMcpTool
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.dependency_caches import forget_dependencies
from codeagent.quotas.reservations import forget_reservations
from codeagent.relay.budget_notices import BudgetNotices
from codeagent.relay.canaries import CanaryWatch
from codeagent.relay.projection_checks import ProjectionChecks
from codeagent.relay.projection_lags import measure_lags
from codeagent.relay.retention import Forget, RetentionLoop
from codeagent.response_cache.tables import forget_expired_replies
from codeagent.rounds import Rounds
from codeagent.settings import Settings
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import get_logger
from codeagent.transparency.tables import thin_checkpoints
from codeagent.workers.deltas import Send
from codeagent.workers.effect import EffectLoop, EffectPolicy, Performer
from codeagent.workers.step import StepLoop

log = get_logger(__name__)

RETENTION_SECONDS = 60.0
TEND_SECONDS = 0.5
ENDED_SECONDS = 2.0
"""Between two looks of a sandbox worker at what its operators ask, and at workspaces that nothing runs in."""
MEASURE_SECONDS = 5.0
ADDRESSES_KEPT = timedelta(days=180)
"""How long the audit tells from which network address something was done."""


def consume(
    parts: Parts, topics: tuple[str, ...], group: str, handle: HandleMessage, give_up: GiveUp | None = None
) -> None:
    delivery = Delivery(parts.publisher, group=group, handle=handle, give_up=give_up)
    consumer = GroupConsumer(
        parts.kafka, topics, group=group, handle=delivery, drain_seconds=parts.settings.drain_seconds
    )

    async def assigned() -> bool:
        return consumer.ready

    parts.process.checks["consumer"] = assigned
    parts.process.start.append(consumer.start)
    parts.process.stop.append(consumer.stop)


async def agent_worker(settings: Settings, listener: socket.socket | None = None) -> Process:
    parts = await assemble(AGENT_WORKER, settings)
    loop = StepLoop(parts.database, parts.log, parts.outbox, events_topic=RUN_EVENTS)
    consume(parts, AGENT_INPUTS, AGENT_WORKER, loop.handle, loop.give_up)
    return finish(parts, listener)


def owner(parts: Parts) -> str:
    """By what name a process claims effects."""
    return parts.settings.worker_name or f"{parts.process.role}-{new_uuid()}"


def perform(
    parts: Parts,
    performer: Performer,
    ledger: EffectsLedger,
    *,
    slots: int,
    is_able: Callable[[], bool] = lambda: True,
) -> EffectLoop:
    settings = parts.settings
    policy = EffectPolicy(slots=slots, lease_seconds=settings.lease_seconds, max_attempts=settings.max_attempts)
    loop = EffectLoop(parts.database, ledger, performer, parts.outbox, policy, is_able)
    if settings.worker_name:
        parts.process.start.append(ledger.recover)
    parts.process.start.append(loop.start)
    return loop


def deltas(parts: Parts) -> Send:
    async def send(key: str, value: bytes) -> None:
        await parts.publisher.send_unconfirmed(RUN_DELTAS, key, value, [("content-type", b"application/json")])

    return send


def ask_outside(parts: Parts, performer: Performer, *, slots: int, durable_claims: bool) -> EffectLoop:
    """What performs commands for servers that are no part of the system."""
    ledger = EffectsLedger(
        parts.database,
        kind=performer.kind,
        owner=owner(parts),
        lease=timedelta(seconds=parts.settings.lease_seconds),
        durable_claims=durable_claims,
        new_token=new_uuid,
    )
    return perform(parts, performer, ledger, slots=slots)


def ask_models(parts: Parts, performer: Performer, tools: Performer | None = None) -> list[EffectLoop]:
    """What takes commands for models, and for tools of MCP servers, from their topic, has them performed and
    answers."""
    loops = [ask_outside(parts, performer, slots=parts.settings.provider_slots, durable_claims=False)]
    if tools is not None:
        # A claim counts as a call that may have been made: it has to be there after a crash.
        loops.append(ask_outside(parts, tools, slots=parts.settings.mcp_slots, durable_claims=True))

    async def handle(message: Message) -> None:
        await loops[isinstance(message.data, CallMcpTool)].handle(message)

    consume(parts, (PROVIDER_COMMANDS,), PROVIDER_WORKER, handle)
    return loops


def run_commands(parts: Parts, performer: Performer, is_able: Callable[[], bool]) -> EffectLoop:
    """The same for commands of sandboxes, while their isolation is proven."""
    settings = parts.settings
    ledger = SandboxLedger(
        parts.database,
        owner=owner(parts),
        lease=timedelta(seconds=settings.lease_seconds),
        new_token=new_uuid,
        most_of_tenant=settings.sandbox_quota.concurrent_sandboxes,
    )
    loop = perform(parts, performer, ledger, slots=settings.sandbox_slots, is_able=is_able)
    consume(parts, (SANDBOX_COMMANDS,), SANDBOX_WORKER, loop.handle)
    return loop


async def provider_worker(settings: Settings, listener: socket.socket | None = None) -> Process:
    from codeagent.artifacts.store import LocalArtifactStore
    from codeagent.cli.models import Models
    from codeagent.mcp.client import McpClient
    from codeagent.mcp.servers import McpServers
    from codeagent.provider_registry.breakers import BreakerJournal
    from codeagent.provider_registry.stored_keys import StoredCredentials
    from codeagent.response_cache.cache import ResponseCache
    from codeagent.workers.call_cache import CallCache
    from codeagent.workers.mcp import McpPerformer
    from codeagent.workers.provider import ProviderPerformer
    from codeagent.workers.spending import Spending

    parts = await assemble(PROVIDER_WORKER, settings)
    settings = parts.settings
    journal = BreakerJournal(parts.database, owner(parts))
    stored = StoredCredentials(parts.database, parts.box)
    keys, slots = provider_keys(parts.secrets), settings.provider_slots
    models = Models(settings.providers(), keys, journal.heard, stored.of, slots)
    store = LocalArtifactStore(settings.artifacts_dir)
    cache = None if parts.box is None else ResponseCache(parts.database, parts.box)
    performer = ProviderPerformer(
        parts.log,
        store,
        models.resolve,
        deltas(parts),
        answers_topic=PROVIDER_EVENTS,
        spending=Spending(CallReservations(parts.database)),
        is_live=partial(parts.features.enabled, LIVE_DELTAS),
        record_calls=settings.record_calls,
        cache=CallCache(cache, models.asking_digest),
    )
    parts.process.start += [models.preload, partial(journal.follow, models.breakers.values()), models.start]
    parts.process.start += [journal.start, stored.start]
    servers = McpClient(McpServers(settings.mcp_servers))
    loops = ask_models(parts, performer, McpPerformer(servers, store, answers_topic=PROVIDER_EVENTS))

    async def drain() -> None:
        await asyncio.gather(*(loop.drain(settings.drain_seconds) for loop in loops))

    parts.process.stop += [drain, models.close, journal.stop, stored.stop]
    return finish(parts, listener)


async def sandbox_worker(settings: Settings, listener: socket.socket | None = None) -> Process:
    from codeagent.cli.sandbox_parts import choose, performer_of, sweep_of
    from codeagent.workers.standing import Standing

    parts = await assemble(SANDBOX_WORKER, settings)
    settings = parts.settings
    driver = await choose(settings)
    standing = Standing(driver)
    parts.process.checks["sandbox"] = standing.check
    performer = performer_of(parts, driver, deltas(parts))

    async def begin() -> None:
        await driver.reap(frozenset())
        await performer.workspaces.begin()

    async def tend() -> float:
        await performer.workspaces.obey()
        await performer.workspaces.close_idle(settings.sandbox_idle_seconds)
        return TEND_SECONDS

    async def end() -> float:
        await performer.workspaces.close_ended(parts.log.ended_among)
        return ENDED_SECONDS

    rounds, endings = Rounds("sandbox", tend), Rounds("endings", end)
    parts.process.start += [begin, standing.start, rounds.start, endings.start]
    loop = run_commands(parts, performer, is_able=lambda: standing.holds)
    parts.process.stop.append(lambda: loop.drain(settings.drain_seconds))
    retention = RetentionLoop({"artifacts": sweep_of(parts).forget}, every_seconds=RETENTION_SECONDS)
    parts.process.start.append(retention.start)
    parts.process.stop += [retention.stop, rounds.stop, endings.stop, standing.stop, performer.close, driver.shutdown]
    return finish(parts, listener)


async def relay(settings: Settings, listener: socket.socket | None = None) -> Process:
    from codeagent.cli.dead_letter_keeping import keep_dead_letters
    from codeagent.cli.erasing import erase, retire_runs
    from codeagent.cli.transparency import prove
    from codeagent.cli.webhooks import deliver
    from codeagent.webhooks.dispatcher import DeliveryDispatcher

    parts = await assemble("relay", settings)
    settings = parts.settings
    projectors = [kind(parts.database, parts.log) for kind in PROJECTIONS.values()]
    notices, canaries = BudgetNotices(parts.database), CanaryWatch(parts.database)
    checks = ProjectionChecks(parts.database)
    letters, forget_letters = keep_dead_letters(parts)
    keep = timedelta(hours=settings.submission_retention_hours)
    forgetters: dict[str, Forget] = {
        "submissions": partial(SubmissionLedger(parts.database).forget, keep),
        "revocations": partial(forget_ended, parts.database),
        "addresses": partial(forget_origins, parts.database, ADDRESSES_KEPT),
        "logins": partial(forget_logins, parts.database, SessionPolicy().idle),
        "reservations": partial(forget_reservations, parts.database),
        "dependencies": partial(forget_dependencies, parts.database, timedelta(days=settings.dependencies_days)),
        "call_reservations": partial(forget_call_reservations, parts.database),
        "snapshots": partial(forget_old, parts.database),
        "cached_replies": partial(forget_expired_replies, parts.database),
        "checkpoints": partial(thin_checkpoints, parts.database, timedelta(days=settings.audit_checkpoint_days)),
        **forget_letters,
        **retire_runs(parts),
        **deliver(parts),
    }

    async def measure() -> float:
        await measure_lags(parts.database, [*PROJECTIONS, DeliveryDispatcher.NAME])
        waiting = await waiting_for_room(parts.database, settings.sandbox_quota.concurrent_sandboxes)
        metrics.SANDBOX_WAITING.set(waiting)
        await letters.measure()
        return MEASURE_SECONDS

    retention = RetentionLoop(forgetters, every_seconds=RETENTION_SECONDS)
    measuring = Rounds("measure", measure)
    parts.process.start += [*(projector.start for projector in projectors), notices.start, retention.start]
    parts.process.start += [canaries.start, measuring.start, checks.start]
    parts.process.stop += [checks.stop, measuring.stop, canaries.stop, retention.stop, notices.stop]
    parts.process.stop += [projector.stop for projector in projectors]
    prove(parts)
    erase(parts)
    return finish(parts, listener, measure=True)


async def edge(settings: Settings, listener: socket.socket | None = None) -> Process:
    from codeagent.cli.edge_service import edge_service

    return await edge_service(settings, listener)


Role = Callable[[Settings, socket.socket | None], Coroutine[Any, Any, Process]]
ROLES: dict[str, Role] = {
    "edge": edge,
    AGENT_WORKER: agent_worker,
    PROVIDER_WORKER: provider_worker,
    SANDBOX_WORKER: sandbox_worker,
    "relay": relay,
}
