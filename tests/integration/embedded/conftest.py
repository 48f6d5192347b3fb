"""A data directory that was already created once, so that only the tests about creating one wait for it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.embedded.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def created_once() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="codeagent-created-"))
    directory.chmod(0o711)
    with EmbeddedPostgres(directory / "postgres"):
        pass
    yield directory / "postgres"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def data_dir(created_once: Path, state_dir: Path) -> Path:
    """PostgreSQL's part of a data directory, as an orderly stop left it."""
    subprocess.run(["cp", "-a", str(created_once), str(state_dir)], check=True)
    return state_dir / "postgres"
