"""A real driver for each test. They share one state directory, so that the Python runtime is built once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import Workspace
from tests.conftest import unavailable
from tests.integration.sandboxes.support import LIMITS, archive, require_root_and_bwrap
from tests.servers.git_server import make_certificate
from tests.servers.registry import HOST, Registry, serving


@pytest.fixture(scope="session")
def state_dir() -> Iterator[Path]:
    require_root_and_bwrap()
    directory = Path(tempfile.mkdtemp(prefix="codeagent-sandboxes-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def driver(state_dir: Path) -> AsyncIterator[BubblewrapDriver]:
    driver = BubblewrapDriver(state_dir)
    yield driver
    await driver.shutdown()
    assert list((state_dir / "workspaces").iterdir()) == []


@pytest.fixture
async def workspace(driver: BubblewrapDriver, tmp_path: Path) -> Workspace:
    return await driver.open("test", archive(tmp_path, {"README": b"hello\n"}), b"", LIMITS)


@pytest.fixture
async def cold(state_dir: Path) -> AsyncIterator[BubblewrapDriver]:
    """A driver that starts nothing ahead: whatever runs as a slot's user is a command, or left of one."""
    driver = BubblewrapDriver(state_dir, parked=False)
    yield driver
    await driver.shutdown()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    try:
        return make_certificate(tmp_path_factory.mktemp("tls"), HOST)
    except FileNotFoundError:
        unavailable("openssl is not installed")


@pytest.fixture
def registry(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with serving(*certificate, monkeypatch) as found:
        yield found
