"""The whole system for a test, in both shapes, with a scripted model behind a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.eventlog import migrate
from tests.acceptance.system import ServedSystem, System, UpSystem
from tests.servers.model_server import ModelServer
from tests.services.kafka import ApacheKafka
from tests.services.postgres import PostgresCluster


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every account may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-acceptance-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def providers_file(place: Path, model_server: ModelServer) -> Path:
    path = place / "providers.json"
    path.write_text(
        json.dumps([{"name": "local", "kind": "openai", "base_url": model_server.openai_url, "context_window": 100000}])
    )
    return path


@pytest.fixture
def up_system(place: Path, providers_file: Path) -> Iterator[UpSystem]:
    system = UpSystem(place / "data", "--providers", str(providers_file))
    yield system
    system.stop()


@pytest.fixture
def kafka_system(
    place: Path, providers_file: Path, apache_kafka: ApacheKafka, postgres_15: PostgresCluster
) -> Iterator[ServedSystem]:
    """On Apache Kafka and PostgreSQL 15, one process a role."""
    yield from _served(place, providers_file, apache_kafka, postgres_15, second_edge=False)


@pytest.fixture
def two_edges(
    place: Path, providers_file: Path, apache_kafka: ApacheKafka, postgres_15: PostgresCluster
) -> Iterator[ServedSystem]:
    """The same with a second edge."""
    yield from _served(place, providers_file, apache_kafka, postgres_15, second_edge=True)


def _served(
    place: Path, providers_file: Path, apache_kafka: ApacheKafka, postgres_15: PostgresCluster, *, second_edge: bool
) -> Iterator[ServedSystem]:
    if not apache_kafka.is_alive():
        apache_kafka.restart()
    postgres_15.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    url = postgres_15.new_database()
    environment = {
        "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": apache_kafka.bootstrap_servers,
        "CODEAGENT_PROVIDERS_FILE": str(providers_file),
    }
    system = ServedSystem(place, url, environment, second_edge=second_edge)
    yield system
    system.stop()


@pytest.fixture(params=["up_system", "kafka_system"])
def system(request: pytest.FixtureRequest) -> System:
    """Both shapes: the embedded broker with PostgreSQL 18, and Apache Kafka with PostgreSQL 15."""
    running: System = request.getfixturevalue(request.param)
    return running
