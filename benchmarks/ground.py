"""The ground that everything is measured on: servers, a migrated database, topics, and processes forked beside them."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from codeagent.broker.admin import TopicAdmin, wanted_topics
from codeagent.broker.connection import KafkaConnection
from codeagent.broker.topics import load_topics
from codeagent.embedded.broker import EmbeddedBroker
from codeagent.embedded.postgres import EmbeddedPostgres
from codeagent.eventlog import migrate
from codeagent.settings import Settings
from tests.services.kafka import ApacheKafka, missing_for_kafka

NO_LIMITS: dict[str, Any] = {
    "rate_submit": "100000000/second",
    "rate_write": "100000000/second",
    "rate_read": "100000000/second",
    "max_loop_lag_seconds": 60.0,
}
"""What an edge costs is measured, not what it refuses: every request is counted, and none turned away."""


@dataclass(frozen=True)
class Ground:
    """One broker and one database. `settings` are those of every process on it."""

    broker: str
    settings: Settings
    directory: Path

    @property
    def connection(self) -> KafkaConnection:
        return KafkaConnection(
            self.settings.kafka_bootstrap_servers,
            "bench",
            idempotent=self.settings.kafka_idempotent,
            fetch_wait_ms=self.settings.kafka_fetch_wait_ms,
        )


async def prepare(settings: Settings) -> None:
    connection = KafkaConnection(settings.kafka_bootstrap_servers, "bench", idempotent=False)
    await migrate.upgrade(settings.database_url.get_secret_value())
    admin = TopicAdmin(connection, replication=1, configurable=False)
    await admin.apply(wanted_topics(load_topics(settings.topics_dir), "dev"))


@contextmanager
def grounds() -> Iterator[list[Ground]]:
    """The embedded broker, and Apache Kafka where Java and Maven are there, over one PostgreSQL each."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-bench-"))
    directory.chmod(0o711)
    embedded = EmbeddedBroker(directory / "broker")
    kafka = ApacheKafka() if missing_for_kafka() is None else None
    postgres = [EmbeddedPostgres(directory / f"postgres{number}") for number in range(2)]
    try:
        embedded.start()
        made = [_ground("embedded broker", directory, postgres[0].start().url, embedded.bootstrap_servers)]
        if kafka is not None:
            kafka.start()
            name = f"Apache Kafka {kafka.version()}"
            made.append(_ground(name, directory, postgres[1].start().url, kafka.bootstrap_servers))
        for ground in made:
            in_child(partial(_prepare, ground.settings)).join()
        yield made
    finally:
        for server in postgres:
            server.stop()
        embedded.stop()
        if kafka is not None:
            kafka.close()
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(settings: Settings) -> None:
    asyncio.run(prepare(settings))


def _ground(name: str, directory: Path, url: str, servers: str) -> Ground:
    embedded = name.startswith("embedded")
    settings = Settings(
        database_url=SecretStr(url),
        kafka_bootstrap_servers=servers,
        kafka_idempotent=not embedded,
        kafka_sole_member=embedded,
        kafka_fetch_wait_ms=2 if embedded else 500,
        topics_profile="dev",
        durable_accept=embedded,
        artifacts_dir=directory / "artifacts",
        sandbox_dir=directory / "sandboxes",
        log_level="error",
        provider_slots=200,
        sandbox_slots=200,
        sandbox_workspaces=1000,
        **NO_LIMITS,
    )
    return Ground(name, settings, directory)


def in_child(target: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    """Runs something in a forked process."""
    process = multiprocessing.get_context("fork").Process(target=target, daemon=True)
    process.start()
    return process
