"""A worker's driver is asked again whether it isolates, and nothing is taken while it does not."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codeagent.sandboxes import probe
from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.workers.standing import Standing
from tests.conftest import let_everyone_pass
from tests.integration.sandboxes.support import require_root_and_bwrap


@pytest.fixture
async def driver(state_dir: Path, tmp_path: Path) -> AsyncIterator[BubblewrapDriver]:
    """Of a program that can be exchanged."""
    require_root_and_bwrap()
    program = tmp_path / "bwrap"
    shutil.copy(str(shutil.which("bwrap")), program)
    let_everyone_pass(tmp_path)
    driver = BubblewrapDriver(state_dir, bwrap_path=str(program))
    await driver.probe()
    yield driver
    await driver.shutdown()


async def test_a_program_that_was_exchanged_is_proven_before_it_is_used(
    driver: BubblewrapDriver, tmp_path: Path
) -> None:
    standing = Standing(driver, look_seconds=3600)
    await standing.start()
    try:
        await standing.look()
        assert standing.holds
        program = tmp_path / "bwrap"
        program.rename(tmp_path / "good")
        program.write_text("#!/bin/sh\necho bubblewrap 9.9.9\n")
        program.chmod(0o755)
        await standing.look()
        assert not await standing.check()
        assert any("a sandbox" in reason for reason in standing.reasons)
        (tmp_path / "good").rename(program)
        await standing.look()
        assert await standing.check()
    finally:
        await standing.stop()


async def test_a_proof_grows_old_and_a_limit_that_no_longer_bites_is_found(
    driver: BubblewrapDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = Standing(driver, look_seconds=3600, prove_seconds=0)
    await standing.start()
    try:
        monkeypatch.setattr(probe, "_MEMORY_PROGRAM", "pass")
        await standing.look()
        assert standing.reasons == ("not proven: memory limited",)
        monkeypatch.undo()
        await standing.look()
        assert standing.holds
    finally:
        await standing.stop()
