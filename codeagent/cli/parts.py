"""What every process of every role is made of, built from the settings."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from codeagent import __version__
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.publisher import Publisher
from codeagent.cli.kafka import kafka_connection
from codeagent.cli.process import Check, HttpServer, Process, bind, monitor_app
from codeagent.cli.secrets import database_address, open_secrets, resolved
from codeagent.cli.subject_keys import check_keys, sealing_box, subject_keys
from codeagent.encryption import SecretBox
from codeagent.eventlog.database import SERVICE_ROLE, Database
from codeagent.eventlog.log import EventLog
from codeagent.eventlog.migrations import HEAD
from codeagent.eventlog.sweep import Sweeper
from codeagent.eventlog.tenants import EDGE_ROLE
from codeagent.flags.evaluation import Features, features_of
from codeagent.flags.file_provider import FileProvider
from codeagent.relay.outbox import OutboxPublisher
from codeagent.relay.sweeps import SweepLoop
from codeagent.sandboxes.sources import TrustedHost
from codeagent.secrets.store import SecretStore
from codeagent.settings import Settings
from codeagent.subjects.keys import SubjectKeys
from codeagent.telemetry.logs import configure_logs
from codeagent.telemetry.traces import configure_traces

SWEEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What every process has. `settings` hold secrets as they were at the start, `secrets` as they are now; `box`
    seals and opens secrets in the database, where there are keys for it."""

    settings: Settings
    secrets: SecretStore
    box: SecretBox | None
    features: Features
    database: Database
    log: EventLog
    sweeper: Sweeper
    kafka: KafkaConnection
    publisher: Publisher
    outbox: OutboxPublisher
    process: Process


def role_database(role: str, settings: Settings, secrets: SecretStore, subjects: SubjectKeys) -> Database:
    """A role's pool, which follows its address and password when they change."""
    database = Database(
        lambda: database_address(secrets),
        connections=settings.database_connections,
        name=f"codeagent-{role}",
        role=EDGE_ROLE if role == "edge" else SERVICE_ROLE,
        not_let_in=secrets.hurry,
        subjects=subjects,
    )
    for name in ("database_url", "database_password"):
        secrets.watch(name, database.renew)
    return database


def _features(settings: Settings) -> Features:
    return Features() if settings.flags_file is None else features_of(FileProvider(settings.flags_file))


async def assemble(role: str, settings: Settings) -> Parts:
    configure_logs(role, settings.log_level)
    configure_traces(role, __version__, settings.otlp_endpoint, settings.trace_ratio)
    secrets = await open_secrets(role, settings)
    settings = resolved(settings, secrets)
    box = sealing_box(secrets)
    database = role_database(role, settings, secrets, subject_keys(settings, secrets, box))
    await check_keys(database)
    log_reader = EventLog(database)
    sweeper = Sweeper(database)
    kafka = kafka_connection(settings, f"codeagent-{role}")
    publisher = Publisher(kafka)
    outbox = OutboxPublisher(publisher, sweeper, log_reader)

    async def database_answers() -> bool:
        rows = await database.fetch("SELECT version_num FROM alembic_version")
        return bool(rows) and rows[0]["version_num"] >= HEAD

    async def broker_answers() -> bool:
        return publisher.ready

    checks: dict[str, Check] = {"database": database_answers, "broker": broker_answers}
    process = Process(role, stop_seconds=settings.drain_seconds + 5, checks=checks)
    return Parts(
        settings, secrets, box, _features(settings), database, log_reader, sweeper, kafka, publisher, outbox, process
    )  # fmt: skip


def finish(parts: Parts, listener: socket.socket | None = None, *, measure: bool = False) -> Process:
    """The parts that every process starts last and stops last."""
    settings, process = parts.settings, parts.process
    process.start[:0] = [parts.secrets.start, parts.publisher.start]
    if process.role != "edge":
        # The edge sees one tenant at a time: what it could not send, any other process finds.
        sweeps = SweepLoop(parts.outbox, parts.sweeper, every_seconds=SWEEP_SECONDS, measure=measure)
        process.start.append(sweeps.start)
        process.stop.append(sweeps.stop)
    process.stop += [parts.outbox.stop, parts.publisher.stop, parts.database.close]
    process.stop += [parts.database.subjects.close, parts.secrets.stop]
    if process.role != "edge":
        listening = listener if listener is not None else bind(settings.monitor_host, settings.monitor_port)
        monitor = HttpServer(monitor_app(process), listening, 1.0)
        process.start.insert(0, monitor.start)
        process.stop.append(monitor.stop)
    return process


def trusted_hosts(settings: Settings) -> tuple[TrustedHost, ...]:
    return tuple(TrustedHost(known.host, known.port, known.certificates) for known in settings.trusted_git_hosts)
