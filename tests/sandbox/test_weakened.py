"""The same attacks on sandboxes with one wall taken away get out, and are seen to: the checks are live."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox import drivers
from tests.sandbox.arena import Arena, opened
from tests.sandbox.attack import attacks
from tests.sandbox.bait import Bait
from tests.sandbox.judge import Traces
from tests.sandbox.test_attacks import WHOLE
from tests.sandbox.weakened import WEAKNESSES, Weakness

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def weak(
    request: pytest.FixtureRequest, bait: Bait, traces: Traces, state_dir: Path, module_database_url: str
) -> AsyncIterator[Arena]:
    """A worker whose sandboxes have the weakness that the test's parameter is."""
    drivers.required("bwrap")
    weakness: Weakness = request.param
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        if weakness.patch is not None:
            weakness.patch(patch)
        bait.keep_victims(traces.victims)
        driver = weakness.make(state_dir, bait, Path(folder))
        async with opened(driver, bait, traces, module_database_url, Path(folder)) as arena:
            yield arena


@pytest.mark.parametrize("weak", WEAKNESSES, indirect=True, ids=lambda weakness: weakness.name.replace(" ", "-"))
async def test_what_it_opens_gets_out_and_is_seen(
    request: pytest.FixtureRequest, weak: Arena, record_property: Callable[[str, object], None]
) -> None:
    opens = request.node.callspec.params["weak"].opens
    held = []
    for name in opens if WHOLE else opens[:1]:
        attack = attacks(own_kernel=False)[name]
        assert attack.harmless, f"{name} would do harm where nothing holds it"
        if not await weak.attacked(attack):
            held.append(name)
    record_property("weakened", {"attacks": len(opens), "contained": held})
    assert held == []
