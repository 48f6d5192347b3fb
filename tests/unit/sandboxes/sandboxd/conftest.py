"""A helper over a driver that remembers what it was asked, and a worker that asks it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from codeagent.sandboxes.offers import OfferedDriver
from codeagent.sandboxes.protocol import (
    IsolationLevel,
)
from codeagent.sandboxes.sandboxd.client import RemoteDriver, RemoteWorkspace
from codeagent.sandboxes.sandboxd.server import SandboxServer, empty_scratch
from tests.integration.sandboxes.support import archive
from tests.unit.sandboxes.sandboxd.twin import CEILING, FILES, LIMITS, Twin


@pytest.fixture
def twin() -> Twin:
    return Twin()


@pytest.fixture
async def place(twin: Twin, tmp_path: Path) -> AsyncIterator[Path]:
    scratch = empty_scratch(tmp_path / "fetched")
    driver = cast("OfferedDriver", twin)
    server = SandboxServer(driver, CEILING, scratch, uid=os.geteuid(), gid=os.getegid())
    path = tmp_path / "socket"
    await server.start(path)
    yield path
    await server.stop()
    assert list((tmp_path / "fetched").iterdir()) == []


@pytest.fixture
async def remote(place: Path) -> AsyncIterator[RemoteDriver]:
    driver = RemoteDriver(place, IsolationLevel.NONE, patience_seconds=5.0)
    await driver.probe()
    yield driver
    await driver.shutdown()


@pytest.fixture
async def workspace(remote: RemoteDriver, tmp_path: Path) -> RemoteWorkspace:
    return cast("RemoteWorkspace", await remote.open("ours", archive(tmp_path, FILES), b"", LIMITS))
