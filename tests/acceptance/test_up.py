"""`codeagent up` and its data directory: one system at a time, wherever its database is."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.eventlog import migrate
from tests.acceptance.checks import Watched, upload
from tests.acceptance.conversations import EMPTY, line_writer
from tests.acceptance.system import UpSystem, client, codeagent, is_ready
from tests.servers.model_server import ModelServer
from tests.services.kafka import ApacheKafka
from tests.services.postgres import PostgresCluster


@pytest.fixture
def elsewhere(postgres_18: PostgresCluster) -> Iterator[str]:
    """A database that is not the data directory's own."""
    postgres_18.prepare_template(lambda url: asyncio.run(migrate.upgrade(url)))
    url = postgres_18.new_database()
    yield url
    postgres_18.drop_database(url)


def written_in(data_dir: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in data_dir.iterdir() if path.is_file()}


@pytest.mark.timeout(120)
def test_a_second_one_on_the_same_directory_is_refused_also_on_a_database_elsewhere(
    place: Path, elsewhere: str
) -> None:
    first = UpSystem(place / "data", CODEAGENT_DATABASE_URL=elsewhere)
    try:
        assert first.database_url == elsewhere
        assert (first.data_dir / "kek").stat().st_mode & 0o777 == 0o600
        before = written_in(first.data_dir)
        second = subprocess.run(
            codeagent("up", "--data-dir", str(first.data_dir)),
            env={**os.environ, "CODEAGENT_DATABASE_URL": elsewhere},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert second.stderr == (
            f"codeagent: the data directory {first.data_dir} is in use by process {first.process.pid}: "
            "stop that one first, or choose another data directory\n"
        )
        assert written_in(first.data_dir) == before
        assert is_ready(first.connection.url)
    finally:
        first.stop()


@pytest.mark.timeout(120)
def test_it_runs_on_a_broker_and_a_database_that_are_there_already(
    place: Path,
    elsewhere: str,
    apache_kafka: ApacheKafka,
    model_server: ModelServer,
    providers_file: Path,
    tmp_path: Path,
) -> None:
    model_server.script = line_writer(1)
    if not apache_kafka.is_alive():
        apache_kafka.restart()
    system = UpSystem(
        place / "data",
        "--providers",
        str(providers_file),
        CODEAGENT_DATABASE_URL=elsewhere,
        CODEAGENT_KAFKA_BOOTSTRAP_SERVERS=apache_kafka.bootstrap_servers,
        CODEAGENT_KAFKA_REPLICATION="1",
    )
    try:
        assert not {"broker", "postgres"} & set(system.pids())
        source = {"kind": "archive", "digest": upload(client(system), EMPTY, tmp_path)}
        body = {"task": "Write.", "source": source, "model": "local/scripted"}
        watched = Watched(client(system).submit(body, "elsewhere")["id"])
        watched.follow(client(system))
        assert watched.names[-1] == "run.completed"
    finally:
        system.stop()
