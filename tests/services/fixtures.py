"""Session fixtures that hand out the servers, and the lines that say which of them a test run really used.

A pytest plugin; nothing starts before a test asks for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.embedded.broker import EmbeddedBroker
from codeagent.errors import Rejected
from tests.services.kafka import ApacheKafka, missing_for_kafka
from tests.services.podman import Podman, require_podman
from tests.services.postgres import PostgresCluster, server_postgres
from tests.services.small_disk import MakeDisk, claimed, mounted
from tests.services.valkey import ValkeyServer
from tests.side_by_side import used


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A data directory that servers started by root can reach, which pytest's own `tmp_path` is not."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-state-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """A container engine with an image for sandboxes. Only where CODEAGENT_TEST_CONTAINERS=1 asks for it."""
    require_podman()
    engine = Podman(Path(tempfile.mkdtemp(prefix="codeagent-podman-")))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """The bundled broker: in memory, no idempotent producer."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-broker-"))
    directory.chmod(0o711)
    broker = EmbeddedBroker(directory / "broker")
    try:
        try:
            broker.start()
        except Rejected as error:
            _unavailable(error.detail)
        used("broker: the embedded one")
        yield broker
    finally:
        broker.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[ApacheKafka]:
    """A real Apache Kafka."""
    missing = missing_for_kafka()
    if missing is not None:
        _unavailable(f"Apache Kafka needs {missing}")
    with ApacheKafka() as kafka:
        used(f"broker: Apache Kafka {kafka.version()} ({kafka.runs_in}; version reported by the broker)")
        yield kafka


@pytest.fixture(scope="session", params=["embedded_broker", "apache_kafka"])
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Runs a test once for each kind of broker; the value is the name of the fixture that has it."""
    return str(request.param)


@pytest.fixture(scope="session")
def any_broker(request: pytest.FixtureRequest, broker_kind: str) -> EmbeddedBroker | ApacheKafka:
    """The broker of `broker_kind`: both have `bootstrap_servers`, `is_alive`, `stop` and `restart`."""
    broker: EmbeddedBroker | ApacheKafka = request.getfixturevalue(broker_kind)
    if not broker.is_alive():
        broker.restart()
    return broker


@pytest.fixture(scope="session")
def postgres_18() -> Iterator[PostgresCluster]:
    """The bundled PostgreSQL."""
    yield from _postgres(18)


@pytest.fixture(scope="session")
def postgres_15() -> Iterator[PostgresCluster]:
    """The oldest PostgreSQL that is supported."""
    yield from _postgres(15)


@pytest.fixture(scope="session", params=["postgres_18", "postgres_15"])
def any_postgres(request: pytest.FixtureRequest) -> PostgresCluster:
    """Runs a test once on the bundled and once on the oldest supported PostgreSQL."""
    cluster: PostgresCluster = request.getfixturevalue(request.param)
    return cluster


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey of one's own: it starts in a tenth of a second."""
    server = ValkeyServer()
    try:
        server.start()
        used(f"cache: Valkey {server.version()}")
        yield server
    finally:
        server.close()


@pytest.fixture(params=["mounted", "claimed"])
def make_disk(request: pytest.FixtureRequest) -> MakeDisk:
    """Runs a test on a disk that is really full, and on one that only says so."""
    if request.param == "claimed":
        return claimed
    if os.geteuid() != 0:
        _unavailable("mounting a small disk needs root")
    return mounted


def _postgres(major: int) -> Iterator[PostgresCluster]:
    cluster = server_postgres(major)
    if cluster is None:
        _unavailable(f"PostgreSQL {major} among the machine's packages")
        return
    try:
        try:
            cluster.start()
        except Rejected as error:
            _unavailable(error.detail)
        used(f"database: PostgreSQL {cluster.version()}")
        yield cluster
    finally:
        cluster.close()


def _unavailable(reason: str) -> None:
    # Late, because conftest imports this module.
    from tests.conftest import unavailable

    unavailable(reason)
