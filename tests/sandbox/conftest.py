"""One worker and one database for all attacks on a driver."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from codeagent.sandboxes.runsc import KERNEL_UID_OFFSET
from tests.integration.conftest import module_database_url
from tests.sandbox import drivers, health
from tests.sandbox.arena import Arena, opened
from tests.sandbox.bait import Bait
from tests.sandbox.judge import Traces

__all__ = ["module_database_url"]


@pytest.fixture(scope="session")
def state_dir() -> Iterator[Path]:
    """Shared by the drivers, one at a time, so that the Python runtime is built once."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-attacked-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def bait() -> Iterator[Bait]:
    with Bait() as laid_out:
        yield laid_out


@pytest.fixture(scope="module")
def traces(state_dir: Path, bait: Bait) -> Traces:
    own, neighbours = drivers.SLOTS
    victims = {"slot": own, "neighbour": neighbours, "kernel": own + KERNEL_UID_OFFSET}
    # Of the neighbour's there may be processes: a sandbox that waits for its next command.
    return Traces(state_dir, bait, (victims["slot"], victims["kernel"]), victims)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arena(
    request: pytest.FixtureRequest, bait: Bait, traces: Traces, state_dir: Path, module_database_url: str
) -> AsyncIterator[Arena]:
    """The worker on the driver that the test's parameter names. The machine is as well afterwards as it was."""
    driver = drivers.made(request.param, state_dir, request)
    before = health.measured()
    with tempfile.TemporaryDirectory() as folder:
        async with opened(driver, bait, traces, module_database_url, Path(folder)) as arena:
            yield arena
    assert traces.left() == set()
    assert health.lasting_harm(before) == []
