"""The whole system for a test, in both shapes, with a scripted model behind a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from codeagent.eventlog import migrate
from tests.acceptance.dying import Plan
from tests.acceptance.system import CODEAGENT, ServedSystem, System, UpSystem
from tests.acceptance.two_edges import TwoEdges
from tests.acceptance.windows import ASKING_THE_BROKER, ASKING_THE_DATABASE, BY_WORKERS, OF_TWO_OWNERS
from tests.conftest import SEED
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
def plan(request: pytest.FixtureRequest, place: Path) -> Plan:
    """Which windows the processes of the test's `system` are to meet, drawn anew with another seed."""
    drawn = Plan(place / "plan")
    durable = request.node.callspec.params["system"] == "up_system"
    drawn.draw(SEED, [*(ASKING_THE_DATABASE if durable else ASKING_THE_BROKER), *BY_WORKERS, *OF_TWO_OWNERS])
    return drawn


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Sequence[str]:
    """What is run as `codeagent`: itself, or for a test with a plan, the one that dies as planned."""
    if "plan" not in request.fixturenames:
        return CODEAGENT
    return (sys.executable, "-m", "tests.acceptance.dying", str(request.getfixturevalue("plan").directory))


@pytest.fixture
def up_system(place: Path, providers_file: Path, program: Sequence[str]) -> Iterator[UpSystem]:
    system = UpSystem(place / "data", "--providers", str(providers_file), program=program)
    yield system
    system.stop()


@pytest.fixture
def kafka_system(
    place: Path,
    providers_file: Path,
    program: Sequence[str],
    apache_kafka: ApacheKafka,
    postgres_15: PostgresCluster,
) -> Iterator[ServedSystem]:
    """On Apache Kafka and PostgreSQL 15, one process a role."""
    url, environment = _servers(providers_file, apache_kafka, postgres_15)
    system = ServedSystem(place, url, environment, program)
    yield system
    system.stop()


@pytest.fixture
def two_edges(
    place: Path, providers_file: Path, apache_kafka: ApacheKafka, postgres_15: PostgresCluster
) -> Iterator[TwoEdges]:
    """The same with a second edge."""
    url, environment = _servers(providers_file, apache_kafka, postgres_15)
    system = TwoEdges(place, url, environment)
    yield system
    system.stop()


def _servers(
    providers_file: Path, apache_kafka: ApacheKafka, postgres_15: PostgresCluster
) -> tuple[str, dict[str, str]]:
    """A database of the test's own, and what else the processes are to be told."""
    if not apache_kafka.is_alive():
        apache_kafka.restart()
    postgres_15.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    return postgres_15.new_database(), {
        "CODEAGENT_KAFKA_BOOTSTRAP_SERVERS": apache_kafka.bootstrap_servers,
        "CODEAGENT_PROVIDERS_FILE": str(providers_file),
    }


@pytest.fixture(params=["up_system", "kafka_system"])
def system(request: pytest.FixtureRequest) -> System:
    """Both shapes: the embedded broker with PostgreSQL 18, and Apache Kafka with PostgreSQL 15."""
    running: System = request.getfixturevalue(request.param)
    return running
