"""`codeagent up` and its data directory: one system at a time, wherever its database is."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.eventlog import migrate
from tests.acceptance.system import UpSystem, codeagent, is_ready
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
