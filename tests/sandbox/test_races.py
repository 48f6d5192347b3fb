"""Programs that exchange a file for a link again and again while the host reads and writes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codeagent.sandboxes.offers import OfferedDriver
from codeagent.sandboxes.protocol import ExecSpec, Reason, SandboxFailure, Workspace
from codeagent.sandboxes.streams import discard
from tests.integration.sandboxes.support import LIMITS, archive
from tests.sandbox import drivers
from tests.sandbox.bait import Bait
from tests.sandbox.test_attacks import WHOLE

_SECONDS = 5.0 if WHOLE else 0.5
_EXCHANGING = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.makedirs("a/real", exist_ok=True)
os.makedirs("b/real", exist_ok=True)
open("a/real/file", "w").write("own")
os.symlink(sys.argv[1], "link")
os.symlink(os.path.dirname(sys.argv[1]), "b/linked")
open("a/name", "w").write("own")
open("ready", "x").close()
while True:
    libc.renameat2(-100, b"a/name", -100, b"link", 2)  # RENAME_EXCHANGE
    libc.renameat2(-100, b"a/real", -100, b"b/linked", 2)
"""


@pytest.fixture(params=drivers.wanted() if WHOLE else drivers.wanted()[:1])
async def driver(request: pytest.FixtureRequest, state_dir: Path) -> AsyncIterator[OfferedDriver]:
    made = drivers.made(request.param, state_dir, request)
    yield made
    await made.shutdown()


@pytest.fixture
async def workspace(driver: OfferedDriver, tmp_path: Path) -> Workspace:
    return await driver.open("racing", archive(tmp_path), b"", LIMITS)


async def until_ready(driver: OfferedDriver, workspace: Workspace) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await driver.read_file(workspace, "ready", 10)
                return
            except SandboxFailure:
                await asyncio.sleep(0.02)


async def test_no_exchange_leads_the_host_out(driver: OfferedDriver, workspace: Workspace, bait: Bait) -> None:
    """`a/name` is a file or a link to a file of the machine's; `a/real` a directory or a link to one of the machine's."""
    spec = ExecSpec(("python3", "-c", _EXCHANGING, bait.facts["open_file"]), limits=LIMITS)
    racing = asyncio.create_task(driver.run(workspace, spec, discard))
    await until_ready(driver, workspace)
    outcomes = {"own": 0, "refused": 0}
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline or 0 in outcomes.values():
        assert time.monotonic() < deadline + 20, outcomes  # both have to be met, or nothing was raced
        for path in ("a/name", "a/real/open"):
            try:
                assert await driver.read_file(workspace, path, 1_000) == b"own"
                outcomes["own"] += 1
            except SandboxFailure as refused:
                assert not refused.retryable
                outcomes["refused"] += 1
        for path in ("a/name", "a/real/attackers-mark"):
            try:
                await driver.write_file(workspace, path, b"own")
            except SandboxFailure as refused:
                assert not refused.retryable
    racing.cancel()
    await asyncio.gather(racing, return_exceptions=True)
    assert bait.harm() == []


async def test_a_workspace_can_be_told_and_removed_while_it_changes(
    driver: OfferedDriver, workspace: Workspace, bait: Bait
) -> None:
    spec = ExecSpec(("python3", "-c", _EXCHANGING, bait.facts["open_file"]), limits=LIMITS)
    racing = asyncio.create_task(driver.run(workspace, spec, discard))
    await until_ready(driver, workspace)
    for _ in range(3):
        try:
            assert bait.secret.encode() not in (await driver.diff(workspace, LIMITS)).text
        except SandboxFailure as failure:
            assert bait.secret not in str(failure)
    await driver.close(workspace)
    assert (await racing).reason is Reason.CANCELED
    assert bait.harm() == []
