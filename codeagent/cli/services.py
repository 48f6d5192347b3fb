"""The composition root: builds every object of every role from the settings, here and nowhere else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from codeagent import __version__
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.consumer import GroupConsumer
from codeagent.broker.delivery import Delivery, GiveUp, HandleMessage
from codeagent.broker.publisher import Publisher
from codeagent.broker.topics import (
    AGENT_INPUTS,
    AGENT_WORKER,
    PROVIDER_COMMANDS,
    PROVIDER_EVENTS,
    PROVIDER_WORKER,
    RUN_DELTAS,
    RUN_EVENTS,
    SANDBOX_COMMANDS,
    SANDBOX_EVENTS,
    SANDBOX_WORKER,
)
from codeagent.cli.process import Check, HttpServer, Process, bind, monitor_app
from codeagent.clock import new_uuid
from codeagent.eventlog.accept import SubmissionLedger
from codeagent.eventlog.database import Database
from codeagent.eventlog.effects import EffectsLedger
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.migrations import HEAD
from codeagent.eventlog.sweep import Sweeper
from codeagent.eventlog.tenants import EDGE_ROLE, TenantLog
from codeagent.projections.runs import RunsProjector
from codeagent.relay.outbox import OutboxPublisher
from codeagent.relay.retention import RetentionLoop
from codeagent.relay.sweeps import SweepLoop
from codeagent.sandboxes.sources import TrustedHost
from codeagent.settings import Settings
from codeagent.telemetry import metrics
from codeagent.telemetry.logs import configure_logs, get_logger
from codeagent.telemetry.traces import configure_traces
from codeagent.workers.deltas import Send
from codeagent.workers.effect import EffectLoop, EffectPolicy, Performer
from codeagent.workers.step import StepLoop

log = get_logger(__name__)

SWEEP_SECONDS = 1.0
RETENTION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What every process has."""

    settings: Settings
    database: Database
    log: EventLog
    sweeper: Sweeper
    kafka: KafkaConnection
    publisher: Publisher
    outbox: OutboxPublisher
    process: Process


def assemble(role: str, settings: Settings) -> Parts:
    configure_logs(role, settings.log_level)
    configure_traces(role, __version__, settings.otlp_endpoint, settings.trace_ratio)
    database = Database(
        settings.database_url.get_secret_value(),
        connections=settings.database_connections,
        name=f"codeagent-{role}",
        role=EDGE_ROLE if role == "edge" else None,
    )
    log_reader = EventLog(database)
    sweeper = Sweeper(database)
    kafka = KafkaConnection(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id=f"codeagent-{role}",
        idempotent=settings.kafka_idempotent,
        fetch_wait_ms=settings.kafka_fetch_wait_ms,
        timeout_seconds=settings.kafka_timeout_seconds,
        sole_member=settings.kafka_sole_member,
    )
    publisher = Publisher(kafka)
    outbox = OutboxPublisher(publisher, sweeper, log_reader)

    async def database_answers() -> bool:
        rows = await database.fetch("SELECT version_num FROM alembic_version")
        return bool(rows) and rows[0]["version_num"] >= HEAD

    async def broker_answers() -> bool:
        return publisher.ready

    checks: dict[str, Check] = {"database": database_answers, "broker": broker_answers}
    return Parts(settings, database, log_reader, sweeper, kafka, publisher, outbox, Process(role, checks=checks))


def finish(parts: Parts, listener: socket.socket | None = None, *, measure: bool = False) -> Process:
    """The parts that every process starts last and stops last."""
    settings, process = parts.settings, parts.process
    process.start.insert(0, parts.publisher.start)
    if process.role != "edge":
        # The edge sees one tenant at a time: what it could not send, any other process finds.
        sweeps = SweepLoop(parts.outbox, parts.sweeper, every_seconds=SWEEP_SECONDS, measure=measure)
        process.start.append(sweeps.start)
        process.stop.append(sweeps.stop)
    process.stop += [parts.outbox.stop, parts.publisher.stop, parts.database.close]
    if process.role != "edge":
        listening = listener if listener is not None else bind(settings.monitor_host, settings.monitor_port)
        monitor = HttpServer(monitor_app(process), listening, 1.0)
        process.start.insert(0, monitor.start)
        process.stop.append(monitor.stop)
    return process


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
    parts = assemble(AGENT_WORKER, settings)
    loop = StepLoop(parts.database, parts.log, parts.outbox, events_topic=RUN_EVENTS)
    consume(parts, AGENT_INPUTS, AGENT_WORKER, loop.handle, loop.give_up)
    return finish(parts, listener)


def perform(parts: Parts, performer: Performer, *, slots: int, durable_claims: bool) -> EffectLoop:
    settings = parts.settings
    ledger = EffectsLedger(
        parts.database,
        kind=performer.kind,
        owner=settings.worker_name or f"{parts.process.role}-{new_uuid()}",
        lease=timedelta(seconds=settings.lease_seconds),
        durable_claims=durable_claims,
        new_token=new_uuid,
    )
    policy = EffectPolicy(slots=slots, lease_seconds=settings.lease_seconds, max_attempts=settings.max_attempts)
    loop = EffectLoop(parts.database, ledger, performer, parts.outbox, policy)
    if settings.worker_name:
        parts.process.start.append(ledger.recover)
    parts.process.start.append(loop.start)
    return loop


def deltas(parts: Parts) -> Send:
    async def send(key: str, value: bytes) -> None:
        await parts.publisher.send_unconfirmed(RUN_DELTAS, key, value, [("content-type", b"application/json")])

    return send


async def provider_worker(settings: Settings, listener: socket.socket | None = None) -> Process:
    from codeagent.artifacts.store import LocalArtifactStore
    from codeagent.cli.models import Models
    from codeagent.workers.provider import ProviderPerformer

    parts = assemble(PROVIDER_WORKER, settings)
    models = Models(settings.providers())
    performer = ProviderPerformer(
        parts.log,
        LocalArtifactStore(settings.artifacts_dir),
        models.resolve,
        deltas(parts),
        answers_topic=PROVIDER_EVENTS,
    )
    loop = perform(parts, performer, slots=settings.provider_slots, durable_claims=False)
    consume(parts, (PROVIDER_COMMANDS,), PROVIDER_WORKER, loop.handle)
    parts.process.stop.append(lambda: loop.drain(settings.drain_seconds))
    parts.process.stop.append(models.close)
    return finish(parts, listener)


def trusted_hosts(settings: Settings) -> tuple[TrustedHost, ...]:
    return tuple(TrustedHost(known.host, known.port, known.certificates) for known in settings.trusted_git_hosts)


async def sandbox_worker(settings: Settings, listener: socket.socket | None = None) -> Process:
    from codeagent.artifacts.store import LocalArtifactStore
    from codeagent.sandboxes.protocol import IsolationLevel, Limits
    from codeagent.sandboxes.select import choose_driver, lacking
    from codeagent.workers.sandbox import SandboxPerformer

    parts = assemble(SANDBOX_WORKER, settings)
    driver = await choose_driver(
        IsolationLevel(settings.minimum_level), None, settings.sandbox_dir, trusted_hosts=trusted_hosts(settings)
    )
    metrics.SANDBOX_LEVEL.set(driver.level)
    gaps = lacking(driver.level, is_root=os.geteuid() == 0)
    if gaps:
        log.warning("sandbox.weaker_level", level=int(driver.level), means=gaps)
    performer = SandboxPerformer(
        driver,
        LocalArtifactStore(settings.artifacts_dir),
        deltas(parts),
        answers_topic=SANDBOX_EVENTS,
        limits=Limits(),
        most_workspaces=settings.sandbox_workspaces,
    )

    async def begin() -> None:
        await driver.reap(frozenset())

    parts.process.start.append(begin)
    loop = perform(parts, performer, slots=settings.sandbox_slots, durable_claims=True)
    consume(parts, (SANDBOX_COMMANDS,), SANDBOX_WORKER, loop.handle)
    parts.process.stop.append(lambda: loop.drain(settings.drain_seconds))
    parts.process.stop += [performer.close, driver.shutdown]
    return finish(parts, listener)


async def relay(settings: Settings, listener: socket.socket | None = None) -> Process:
    parts = assemble("relay", settings)
    projector = RunsProjector(parts.database, parts.log)
    keep = timedelta(hours=settings.submission_retention_hours)
    retention = RetentionLoop(SubmissionLedger(parts.database), keep=keep, every_seconds=RETENTION_SECONDS)
    parts.process.start += [projector.start, retention.start]
    parts.process.stop += [retention.stop, projector.stop]
    return finish(parts, listener, measure=True)


async def edge(settings: Settings, listener: socket.socket | None = None) -> Process:
    from codeagent.artifacts.known import KnownArtifacts
    from codeagent.artifacts.store import LocalArtifactStore
    from codeagent.broker.tail import TopicTail
    from codeagent.cli.keys import FileKeys
    from codeagent.edge.app import create_app
    from codeagent.edge.context import EdgeContext, EdgePolicy
    from codeagent.edge.live import LiveHub
    from codeagent.edge.views import RunViews
    from codeagent.identity.tickets import StreamTickets
    from codeagent.providers.registry import ProviderRegistry

    parts = assemble("edge", settings)
    tenant_log = TenantLog(parts.database)
    hub = LiveHub(tenant_log)
    tail = TopicTail(parts.kafka, (RUN_EVENTS, RUN_DELTAS), receive=hub.receive, reconnected=hub.reconnected)
    submissions = SubmissionLedger(parts.database)
    store = LocalArtifactStore(settings.artifacts_dir)
    keys = FileKeys(settings.api_keys_file)
    context = EdgeContext(
        database=parts.database,
        log=tenant_log,
        submissions=submissions,
        publisher=parts.publisher,
        hand_over=parts.outbox.answer,
        store=store,
        known=KnownArtifacts(store),
        hub=hub,
        views=RunViews(tenant_log, submissions),
        authenticate=keys.authenticate,
        still_valid=keys.still_valid,
        tickets=StreamTickets(parts.database),
        supports_model=ProviderRegistry(settings.providers()).supports,
        checks=parts.process.checks,
        policy=EdgePolicy(
            durable_accept=settings.durable_accept,
            default_model=settings.default_model,
            max_body_bytes=settings.max_body_bytes,
            max_upload_bytes=settings.max_upload_bytes,
            submit_expiry_seconds=settings.submit_expiry_seconds,
            trusted_hosts=trusted_hosts(settings),
            cors_origins=settings.cors_origins,
        ),
    )
    listening = listener if listener is not None else bind(settings.http_host, settings.http_port)
    server = HttpServer(create_app(context), listening, settings.drain_seconds)
    parts.process.start += [store.start, hub.start, tail.start, server.start]
    # Streams are told to come back elsewhere before the server stops accepting.
    parts.process.stop += [hub.stop, server.stop, submissions.close, tail.stop]
    return finish(parts)


Role = Callable[[Settings, socket.socket | None], Coroutine[Any, Any, Process]]
ROLES: dict[str, Role] = {
    "edge": edge,
    AGENT_WORKER: agent_worker,
    PROVIDER_WORKER: provider_worker,
    SANDBOX_WORKER: sandbox_worker,
    "relay": relay,
}
